package monitor

import (
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/metrics"
	"surprisal/internal/testkit/queuetest"
)

// TestRunMetrics: only a run that is on has jobs left.
func TestRunMetrics(t *testing.T) {
	for state, want := range map[record.RunState]map[string]int{
		record.RunRunning:   {"queued": 4, "running": 2, "failed": 1, "done": 2, "dead": 1},
		record.RunPaused:    {"queued": 4, "running": 2, "failed": 1, "done": 2, "dead": 1},
		record.RunCancelled: {"done": 2, "dead": 1}, record.RunFailed: {"done": 2, "dead": 1},
		record.RunComplete: {"done": 10},
	} {
		m := runMetrics(RunStatus{
			Run: record.Run{State: state, Jobs: 10},
			Jobs: map[record.State]int{record.StateRunning: 2, record.StateFailed: 1, record.StateDone: 2,
				record.StateDead: 1},
		}, RunMore{}, nil, time.Now())
		if !maps.Equal(m.Jobs, want) {
			t.Errorf("%s: %v, want %v", state, m.Jobs, want)
		}
	}
}

// TestObserver: queue, workers and dead letters are told as they are; a worker that
// goes silent with a job in hand is told of until others have settled that, one
// that ends cleanly is not.
func TestObserver(t *testing.T) {
	b := queuetest.New(t, 1, 6)
	b.Queue(record.RunConfig{AckWait: 30 * time.Second})
	k := b.Consumer("crashes")
	held, err := k.Next(b.Ctx, b.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.Work(b.Consumer("other"), 2)
	dying, err := b.Consumer("other2").Next(b.Ctx, b.Ctx)
	if err == nil {
		err = dying.Fail(b.Ctx, io.ErrUnexpectedEOF)
	}
	for _, w := range []record.Worker{
		{ID: "crashes", Engine: "cuda", Progress: []record.Progress{{Run: b.M.Run, Job: held.Job.ID}}},
		{ID: "ends", Engine: "cpu", Progress: []record.Progress{{Run: b.M.Run, Job: held.Job.ID}}},
		{ID: "idle", Engine: "cpu"},
	} {
		if err == nil {
			err = b.Client.PutWorker(b.Ctx, w)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	meter := metrics.NewDispatcher("v")
	server, err := metrics.Serve(meter.Set, metrics.ServerConfig{Address: ":0"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	o := NewObserver(b.Client, meter, zerolog.Nop())
	look := func() string {
		t.Helper()
		for _, f := range []func() error{
			func() error { return o.queue(b.Ctx) }, func() error { return o.crew(b.Ctx) },
			func() error { return o.dead(b.Ctx) }, func() error { return o.store(b.Ctx) },
		} {
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}
		resp, err := http.Get("http://" + server.Addr() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	told := func(body string, want bool, lines ...string) {
		t.Helper()
		for _, l := range lines {
			if strings.Contains(body, "\n"+l) != want {
				t.Errorf("/metrics has %s: %v", l, !want)
			}
		}
	}
	told(look(), true, `surprisal_queue_jobs{state="pending"} 2`, `surprisal_queue_jobs{state="in_hand"} 1`,
		"surprisal_dead_letters 1", "surprisal_ack_wait_seconds 30",
		`surprisal_workers{engine="cuda",state="busy"} 1`, `surprisal_workers{engine="cpu",state="busy"} 1`,
		`surprisal_workers{engine="cpu",state="idle"} 1`,
		"surprisal_nats_connected 1", "surprisal_heartbeat_age_seconds 0", "surprisal_workers_vanished_total 0")
	for _, id := range []string{"crashes", "ends", "idle"} {
		if err := b.Client.RemoveWorker(b.Ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	moved := time.Now().Add(-jobs.WorkerTTL) // the server dropped its record
	o.workers["crashes"].moved, o.workers["idle"].moved = moved, moved
	silent := func(body string) {
		t.Helper()
		_, age, _ := strings.Cut(body, "\nsurprisal_heartbeat_age_seconds ")
		age, _, _ = strings.Cut(age, "\n")
		s, err := strconv.ParseFloat(age, 64)
		if most := time.Since(moved).Seconds(); err != nil || s < jobs.WorkerTTL.Seconds() || s > most {
			t.Errorf("the oldest heartbeat is %q s old, want %g to %g: %v", age, jobs.WorkerTTL.Seconds(), most, err)
		}
	}
	for range 2 {
		body := look()
		told(body, true, "surprisal_workers_vanished_total 1")
		silent(body)
	}
	o.workers["crashes"].gone = time.Now().Add(-time.Hour)
	silent(look())                                            // its job is on record as its own
	if err := held.Done(b.Ctx, record.Totals{}); err != nil { // as another would
		t.Fatal(err)
	}
	body := look()
	told(body, true, "surprisal_heartbeat_age_seconds 0", "surprisal_workers_vanished_total 1",
		`surprisal_queue_jobs{state="in_hand"} 0`)
	told(body, false, "surprisal_workers{", "surprisal_store_limit_bytes ")
}
