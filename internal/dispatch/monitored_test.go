package dispatch

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/embedded"
	"surprisal/internal/jobs/record"
	"surprisal/internal/monitor"
)

// look is a monitor that runs until the test ends.
func look(t *testing.T, b *bench, c *jobs.Client) *monitor.Monitor {
	t.Helper()
	m := monitor.New(c, monitor.Config{Every: 100 * time.Millisecond})
	ctx, cancel := context.WithCancel(b.Ctx)
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the monitor ended: %v", err)
		}
	})
	return m
}

// sees waits until the monitor's only run has these jobs by state.
func sees(t *testing.T, m *monitor.Monitor, state record.RunState, want map[record.State]int) monitor.RunStatus {
	t.Helper()
	var o monitor.Overview
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		o = m.Overview()
		if len(o.Runs) == 1 && o.Trouble == nil && !o.More[0].Counting && o.Runs[0].Run.State == state &&
			maps.Equal(o.Runs[0].Jobs, want) {
			return o.Runs[0]
		}
	}
	t.Fatalf("never a %s run of %v: %+v", state, want, o)
	return monitor.RunStatus{}
}

// TestMonitor: what it keeps is what GetStatus tells, through done, failed and dead
// jobs, a pause, a retry, the end of the run, a server that goes away and comes
// back, and one that comes back empty.
func TestMonitor(t *testing.T) {
	b := newBench(t, 3, 4)
	cfg := embedded.Config{StoreDir: t.TempDir()}
	restart := func(store string) {
		t.Helper()
		b.Server.Shutdown()
		cfg.StoreDir = store
		var err error
		for b.Server, err = embedded.Start(b.Ctx, cfg); err != nil; b.Server, err = embedded.Start(b.Ctx, cfg) {
			if !strings.Contains(err.Error(), "address already in use") || b.Ctx.Err() != nil {
				t.Fatal(err)
			}
			// somebody else took the port between the two servers, and will let it go
			time.Sleep(100 * time.Millisecond)
		}
	}
	b.Stop()
	var err error
	if b.Server, err = embedded.Start(b.Ctx, cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Port, cfg.Token = b.Server.Port(), b.Server.Token()
	b.Client = b.Connect()
	m := look(t, b, b.Connect())
	b.queue(QueueOptions{})
	sees(t, m, record.RunRunning, map[record.State]int{})
	k := b.Consumer("a")
	b.Work(k, 3)
	l, err := k.Next(b.Ctx, b.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	sees(t, m, record.RunRunning, map[record.State]int{record.StateDone: 3, record.StateRunning: 1})
	if err := l.Fail(b.Ctx, errors.New("never")); err != nil {
		t.Fatal(err)
	}
	rs := sees(t, m, record.RunRunning, map[record.State]int{record.StateDone: 3, record.StateDead: 1})
	st, err := monitor.GetStatus(b.Ctx, b.Client, b.M.Run)
	if err != nil {
		t.Fatal(err)
	}
	if want := st.Runs[0]; !maps.Equal(rs.Jobs, want.Jobs) || rs.Documents != want.Documents ||
		rs.Tokens != want.Tokens || rs.Pace.Percent != want.Pace.Percent || rs.Documents != 3 {
		t.Errorf("monitor: %+v\nstatus: %+v", rs, want)
	}
	if more := m.Overview().More[0]; more.LastError != "never" || more.LastDone.IsZero() {
		t.Errorf("%+v", more)
	}
	if err := Pause(b.Ctx, b.Client, b.M.Run); err != nil {
		t.Fatal(err)
	}
	sees(t, m, record.RunPaused, map[record.State]int{record.StateDone: 3, record.StateDead: 1})

	b.Server.Shutdown()
	for deadline := time.Now().Add(time.Minute); m.Overview().Trouble == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("an outage is not told")
		}
	}
	if o := m.Overview(); len(o.Runs) != 1 || o.Runs[0].Jobs[record.StateDone] != 3 || o.Seen.IsZero() {
		t.Errorf("what was known is gone: %+v", o)
	}
	restart(cfg.StoreDir)
	sees(t, m, record.RunPaused, map[record.State]int{record.StateDone: 3, record.StateDead: 1})
	for ; !b.Client.Connected(); time.Sleep(10 * time.Millisecond) { // it need not be back when the monitor's is
		if b.Ctx.Err() != nil {
			t.Fatal("the client is not connected again")
		}
	}
	if err := resumePaused(b.Ctx, b.Client, b.M.Run); err != nil {
		t.Fatal(err)
	}
	b.Work(b.Consumer("b"), 8)
	sees(t, m, record.RunRunning, map[record.State]int{record.StateDone: 11, record.StateDead: 1})
	if sum, err := b.wait(); err != nil || len(sum.DeadJobs) != 1 {
		t.Fatalf("%+v %v", sum, err)
	}
	sees(t, m, record.RunFailed, map[record.State]int{record.StateDone: 11, record.StateDead: 1})

	// One that comes later counts a run that is over, once.
	late := look(t, b, b.Connect())
	sees(t, late, record.RunFailed, map[record.State]int{record.StateDone: 11, record.StateDead: 1})
	if _, err := Retry(b.Ctx, b.Client, b.M.Run, RetryOptions{Dead: true}, QueueOptions{}, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	b.Work(b.Consumer("c"), 1)
	for _, m := range []*monitor.Monitor{m, late} {
		sees(t, m, record.RunRunning, map[record.State]int{record.StateDone: 12})
	}

	// A server that has lost all: nothing is shown; then what is queued anew.
	restart(t.TempDir())
	for deadline := time.Now().Add(time.Minute); len(m.Overview().Runs) > 0 ||
		m.Overview().Trouble != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("runs of a server that was wiped: %+v", m.Overview())
		}
	}
	b.Client = b.Connect()
	if r, err := Resume(b.Ctx, b.Client, b.M.Out, "", QueueOptions{}, zerolog.Nop()); err != nil || r.Committed != 12 {
		t.Fatalf("%+v %v", r, err)
	}
	sees(t, m, record.RunPlanned, map[record.State]int{})
	if sum, err := b.wait(); err != nil || !sum.Complete {
		t.Fatalf("%+v %v", sum, err)
	}
	complete := func() bool { return m.Overview().Runs[0].Run.State == record.RunComplete }
	for deadline := time.Now().Add(time.Minute); !complete(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the run is never complete")
		}
	}
	if p := m.Overview().Runs[0].Pace; p.Percent != 100 || p.Done != 12 {
		t.Errorf("%+v", p)
	}
}
