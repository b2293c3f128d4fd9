package jobs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/embedded"
	"surprisal/internal/jobs/record"
)

func TestServerRestartKeepsJobs(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 20)
	r.submit(js, 1, 20, 0)
	k, _ := r.worker(quick("a"))
	r.ok(r.next(k).Done(r.ctx, record.Totals{Documents: 10}))
	held := r.next(k)
	r.ok(r.c.PutRun(r.ctx, record.NewRun(manifest("run", 20))))

	waiting := make(chan *Lease) // a worker that waits for a job through the restart
	k2, _ := r.worker(quick("b"))
	r.srv.Shutdown()
	go func() {
		l, err := k2.Next(r.ctx, r.ctx)
		if err != nil {
			t.Error(err)
		}
		waiting <- l
	}()
	time.Sleep(300 * time.Millisecond)
	r.startServer() // same port and token
	l := <-waiting
	if l == nil {
		return
	}
	r.ok(l.Done(r.ctx, record.Totals{Documents: 10}))
	r.ok(held.Done(r.ctx, record.Totals{Documents: 10})) // the lease outlived the server
	r.until("the client that looks is back too", r.c.Connected)
	if q := r.queue(); q.Messages != 17 {
		t.Fatalf("%d messages, want 17", q.Messages)
	}
	for range 17 {
		r.ok(r.next(k).Done(r.ctx, record.Totals{Documents: 10}))
	}
	r.empty()
	run, err := r.c.Run(r.ctx, "run")
	r.ok(err)
	if run.Jobs != 20 || run.State != record.RunPlanned {
		t.Fatalf("run %+v", run)
	}
	n := 0
	r.ok(r.c.JobStates(r.ctx, "run", func(s record.Job) {
		if s.State == record.StateDone && s.Totals.Documents == 10 {
			n++
		}
	}))
	if n != 20 {
		t.Fatalf("%d jobs are done, want 20", n)
	}
}

func TestSettleThroughRestart(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 2)
	r.submit(js, 1, 2, 0)
	cfg := quick("a")
	cfg.SettleTime = 20 * time.Second
	k, _ := r.worker(cfg)
	a, b := r.next(k), r.next(k)
	r.srv.Shutdown()
	errs := make(chan error, 2)
	go func() { errs <- a.Done(r.ctx, record.Totals{}) }()
	go func() { errs <- b.Retry(r.ctx, errBoom) }()
	time.Sleep(500 * time.Millisecond)
	r.startServer()
	r.ok(<-errs)
	r.ok(<-errs)
	r.until("the client that looks is back too", r.c.Connected)
	r.wantState(js[0], record.StateDone, 0, 0)
	r.wantState(js[1], record.StateFailed, 1, 0)
}

func TestSettleWithoutServer(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.submit(makeJobs("run", 1), 1, 1, 0)
	k, _ := r.worker(quick("a"))
	l := r.next(k)
	r.srv.Shutdown()
	ctx, cancel := context.WithTimeout(r.ctx, 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	r.is(l.Done(ctx, record.Totals{}), ErrNotAcked)
	if time.Since(start) > 10*time.Second {
		t.Fatalf("gave up after %s", time.Since(start))
	}
	r.is(l.Done(ctx, record.Totals{}), ErrSettled)
}

func TestConnectTokenChangedByRestart(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	k, c := r.worker(quick("a"))
	r.srv.Shutdown()
	r.cfg.Token = strings.Repeat("other", 8)
	r.startServer()
	_, err := k.Next(r.ctx, r.ctx)
	r.is(err, conn.ErrAuth)
	<-c.Closed()
	r.is(c.Err(), conn.ErrAuth)
}

func TestNotSetUp(t *testing.T) {
	t.Parallel()
	s, err := embedded.Start(context.Background(), embedded.Config{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	r := &rig{t: t, ctx: context.Background(), srv: s}
	r.c = r.client(conn.Config{})
	_, err = r.c.NewConsumer(r.ctx, quick("a"))
	r.is(err, ErrNotSetUp)
	_, err = r.c.Queue(r.ctx)
	r.is(err, ErrNotSetUp)
	_, _, err = r.c.Submit(r.ctx, slices.Values(makeJobs("run", 1)[:0]), 1)
	r.ok(err)
	_, err = r.c.Runs(r.ctx)
	r.is(err, ErrNotSetUp)
	r.is(r.c.PutWorker(r.ctx, record.Worker{ID: "a"}), ErrNotSetUp)

	got := make(chan error, 1) // a worker that may wait does
	w := r.client(conn.Config{Wait: true})
	go func() { _, err := w.NewConsumer(r.ctx, quick("a")); got <- err }()
	time.Sleep(200 * time.Millisecond)
	r.ok(r.c.Setup(r.ctx, Topology{}))
	r.ok(<-got)
}

// TestWipedStoreIsNotSetUp: a client that lived through it is told that the queue is
// not set up, as a new one is.
func TestWipedStoreIsNotSetUp(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	k, _ := r.worker(quick("a"))
	r.ok(r.next(k).Done(r.ctx, record.Totals{Documents: 10}))
	r.ok(r.c.PutRun(r.ctx, record.NewRun(manifest("run", 1))))
	if _, err := r.c.Run(r.ctx, "run"); err != nil {
		t.Fatal(err)
	}
	r.srv.Shutdown()
	r.cfg.StoreDir = t.TempDir()
	r.startServer()
	r.until("connected again", r.c.Connected)
	for what, ask := range map[string]func() error{
		"run":        func() error { _, err := r.c.Run(r.ctx, "run"); return err },
		"runs":       func() error { _, err := r.c.Runs(r.ctx); return err },
		"job":        func() error { _, err := r.c.Job(r.ctx, "run", js[0].ID); return err },
		"dispatcher": func() error { _, _, err := r.c.Dispatcher(r.ctx, "run"); return err },
		"workers":    func() error { _, err := r.c.Workers(r.ctx); return err },
		"queue":      func() error { _, err := r.c.Queue(r.ctx); return err },
	} {
		if err := ask(); !errors.Is(err, ErrNotSetUp) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
