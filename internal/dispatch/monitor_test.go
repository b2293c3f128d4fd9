package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
)

// look is a monitor that runs until the test ends.
func look(t *testing.T, b *bench, c *jobs.Client) *Monitor {
	t.Helper()
	m := NewMonitor(c, zerolog.Nop())
	m.every = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(b.ctx)
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
func sees(t *testing.T, m *Monitor, state jobs.RunState, want map[jobs.State]int) RunStatus {
	t.Helper()
	var o Overview
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		o = m.Overview()
		if len(o.Runs) == 1 && o.Trouble == nil && !o.More[0].Counting && o.Runs[0].Run.State == state && maps.Equal(o.Runs[0].Jobs, want) {
			return o.Runs[0]
		}
	}
	t.Fatalf("never a %s run of %v: %+v", state, want, o)
	return RunStatus{}
}

// TestMonitor: what it keeps is what GetStatus tells, through done, failed and dead
// jobs, a pause, a retry, the end of the run, a server that goes away and comes
// back, and one that comes back empty.
func TestMonitor(t *testing.T) {
	b := newBench(t, 3, 4)
	cfg := jobs.ServerConfig{StoreDir: t.TempDir()}
	restart := func(store string) {
		t.Helper()
		b.server.Shutdown()
		cfg.StoreDir = store
		var err error
		for b.server, err = jobs.StartServer(b.ctx, cfg); err != nil; b.server, err = jobs.StartServer(b.ctx, cfg) {
			if !strings.Contains(err.Error(), "address already in use") || b.ctx.Err() != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond) // somebody else took the port between the two servers, and will let it go
		}
	}
	b.stop()
	var err error
	if b.server, err = jobs.StartServer(b.ctx, cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Port, cfg.Token = b.server.Port(), b.server.Token()
	b.client = b.connect()
	m := look(t, b, b.connect())
	b.queue(QueueOptions{})
	sees(t, m, jobs.RunRunning, map[jobs.State]int{})
	k := b.consumer("a")
	b.work(k, 3)
	l, err := k.Next(b.ctx, b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	sees(t, m, jobs.RunRunning, map[jobs.State]int{jobs.StateDone: 3, jobs.StateRunning: 1})
	if err := l.Fail(b.ctx, errors.New("never")); err != nil {
		t.Fatal(err)
	}
	rs := sees(t, m, jobs.RunRunning, map[jobs.State]int{jobs.StateDone: 3, jobs.StateDead: 1})
	st, err := GetStatus(b.ctx, b.client, b.m.Run)
	if err != nil {
		t.Fatal(err)
	}
	if want := st.Runs[0]; !maps.Equal(rs.Jobs, want.Jobs) || rs.Documents != want.Documents || rs.Tokens != want.Tokens || rs.Pace.Percent != want.Pace.Percent || rs.Documents != 3 {
		t.Errorf("monitor: %+v\nstatus: %+v", rs, want)
	}
	if more := m.Overview().More[0]; more.LastError != "never" || more.LastDone.IsZero() {
		t.Errorf("%+v", more)
	}
	if err := Pause(b.ctx, b.client, b.m.Run); err != nil {
		t.Fatal(err)
	}
	sees(t, m, jobs.RunPaused, map[jobs.State]int{jobs.StateDone: 3, jobs.StateDead: 1})

	b.server.Shutdown()
	for deadline := time.Now().Add(time.Minute); m.Overview().Trouble == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("an outage is not told")
		}
	}
	if o := m.Overview(); len(o.Runs) != 1 || o.Runs[0].Jobs[jobs.StateDone] != 3 || o.Seen.IsZero() {
		t.Errorf("what was known is gone: %+v", o)
	}
	restart(cfg.StoreDir)
	sees(t, m, jobs.RunPaused, map[jobs.State]int{jobs.StateDone: 3, jobs.StateDead: 1})
	for ; !b.client.Connected(); time.Sleep(10 * time.Millisecond) { // it need not be back when the monitor's is
		if b.ctx.Err() != nil {
			t.Fatal("the client is not connected again")
		}
	}
	if err := Unpause(b.ctx, b.client, b.m.Run); err != nil {
		t.Fatal(err)
	}
	b.work(b.consumer("b"), 8)
	sees(t, m, jobs.RunRunning, map[jobs.State]int{jobs.StateDone: 11, jobs.StateDead: 1})
	if sum, err := b.wait(); err != nil || len(sum.DeadJobs) != 1 {
		t.Fatalf("%+v %v", sum, err)
	}
	sees(t, m, jobs.RunFailed, map[jobs.State]int{jobs.StateDone: 11, jobs.StateDead: 1})

	// One that comes later counts a run that is over, once.
	late := look(t, b, b.connect())
	sees(t, late, jobs.RunFailed, map[jobs.State]int{jobs.StateDone: 11, jobs.StateDead: 1})
	if _, err := Retry(b.ctx, b.client, b.m.Run, RetryOptions{Dead: true}, QueueOptions{}, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	b.work(b.consumer("c"), 1)
	for _, m := range []*Monitor{m, late} {
		sees(t, m, jobs.RunRunning, map[jobs.State]int{jobs.StateDone: 12})
	}

	// A server that has lost all: nothing is shown; then what is queued anew.
	restart(t.TempDir())
	for deadline := time.Now().Add(time.Minute); len(m.Overview().Runs) > 0 || m.Overview().Trouble != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("runs of a server that was wiped: %+v", m.Overview())
		}
	}
	b.client = b.connect()
	if r, err := Resume(b.ctx, b.client, b.m.Out, QueueOptions{}, zerolog.Nop()); err != nil || r.Committed != 12 {
		t.Fatalf("%+v %v", r, err)
	}
	sees(t, m, jobs.RunPlanned, map[jobs.State]int{})
	if sum, err := b.wait(); err != nil || !sum.Complete {
		t.Fatalf("%+v %v", sum, err)
	}
	for deadline := time.Now().Add(time.Minute); m.Overview().Runs[0].Run.State != jobs.RunComplete; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the run is never complete")
		}
	}
	if p := m.Overview().Runs[0].Pace; p.Percent != 100 || p.Done != 12 {
		t.Errorf("%+v", p)
	}
}

// TestMonitorEndsWithItsConnection: one that is closed for good ends it, with why.
func TestMonitorEndsWithItsConnection(t *testing.T) {
	b := newBench(t, 1, 1)
	c := b.connect()
	m := NewMonitor(c, zerolog.Nop())
	done := make(chan error, 1)
	go func() { done <- m.Run(b.ctx) }()
	c.Close()
	if err := <-done; !errors.Is(err, jobs.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// TestNewestFirst: pages of jobs and letters, the newest first, have each once.
func TestNewestFirst(t *testing.T) {
	b := newBench(t, 1, 12)
	b.queue(QueueOptions{})
	k := b.consumer("a")
	order := b.work(k, 5)
	for range 4 {
		l, err := k.Next(b.ctx, b.ctx)
		if err == nil {
			err = l.Fail(b.ctx, fmt.Errorf("job %s is bad", l.Job.ID))
		}
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, l.Job.ID)
	}
	slices.Reverse(order)
	m := look(t, b, b.connect())
	sees(t, m, jobs.RunRunning, map[jobs.State]int{jobs.StateDone: 5, jobs.StateDead: 4})
	var newer func(string, []jobs.State, int, int) ([]string, bool, bool)
	page := func(skip, limit int, states ...jobs.State) (ids []string, more bool) {
		t.Helper()
		req := ListRequest{Out: b.m.Out, Run: b.m.Run, Client: b.client, States: states, Skip: skip, Limit: limit, Newest: true, Newer: newer}
		more, err := ListJobs(b.ctx, req, func(j JobLine) error { ids = append(ids, j.Job); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return ids, more
	}
	for _, x := range []struct {
		skip, limit int
		states      []jobs.State
		want        []string
		more        bool
	}{
		{0, 0, []jobs.State{jobs.StateDead, jobs.StateDone}, order, false},
		{0, 3, []jobs.State{jobs.StateDead, jobs.StateDone}, order[:3], true},
		{3, 3, []jobs.State{jobs.StateDead, jobs.StateDone}, order[3:6], true},
		{6, 3, []jobs.State{jobs.StateDead, jobs.StateDone}, order[6:], false},
		{9, 3, []jobs.State{jobs.StateDead, jobs.StateDone}, nil, false},
		{2, 2, []jobs.State{jobs.StateDead}, order[2:4], false},
		{4, 9, []jobs.State{jobs.StateDone}, order[8:], false},
	} {
		if got, more := page(x.skip, x.limit, x.states...); !slices.Equal(got, x.want) || more != x.more {
			t.Errorf("%+v: %v, more %t", x, got, more)
		}
		if x.limit > 0 {
			if got, more, ok := m.Newest(b.m.Run, x.states, x.skip, x.limit); !ok || !slices.Equal(got, x.want) || more != x.more {
				t.Errorf("%+v: the monitor has %v, more %t", x, got, more)
			}
			newer = m.Newest
			if got, more := page(x.skip, x.limit, x.states...); !slices.Equal(got, x.want) || more != x.more {
				t.Errorf("%+v, by the monitor: %v, more %t", x, got, more)
			}
			newer = nil
		}
	}
	var all []string
	for skip := 0; ; skip += 5 {
		ids, more := page(skip, 5)
		if all = append(all, ids...); !more {
			break
		}
	}
	if slices.Sort(all); len(all) != 12 || len(slices.Compact(all)) != 12 {
		t.Errorf("pages have %d jobs: %v", len(all), all)
	}
	for _, x := range []struct {
		skip, limit int
		want        []string
	}{{0, 3, order[:3]}, {3, 3, order[3:4]}, {9, 3, nil}} {
		letters, total, err := NewestDead(b.ctx, b.client, b.m.Run, x.skip, x.limit)
		var ids []string
		for _, l := range letters {
			ids = append(ids, l.ID)
		}
		if err != nil || total != 4 || !slices.Equal(ids, x.want) {
			t.Errorf("%+v: %v of %d, %v", x, ids, total, err)
		}
	}
}
