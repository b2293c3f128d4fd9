package jobs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// one is a job of a run of its own.
func (r *rig) queueRun(run string, priority, n int) {
	r.t.Helper()
	r.open(run, priority)
	r.submit(makeJobs(run, n), 1, n, 0)
}

func (r *rig) runs(k *Consumer, n int) (order []string) {
	r.t.Helper()
	for range n {
		l := r.next(k)
		order = append(order, l.Job.Run)
		r.ok(l.Done(r.ctx, record.Totals{}))
	}
	return order
}

func TestHigherPriorityIsFirst(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.queueRun("low", 0, 6)
	k, _ := r.worker(quick("a"))
	r.runs(k, 2)
	r.queueRun("high", 5, 3)
	r.queueRun("least", -1, 2)
	heard := func(runs ...string) func() bool {
		return func() bool {
			return !slices.ContainsFunc(runs, func(run string) bool {
				q, _ := k.roster.queue(run)
				return q.Pending == 0
			})
		}
	}
	r.until("the new runs are heard of", heard("high", "least"))
	got := fmt.Sprint(r.runs(k, 9))
	if want := "[high high high low low low low least least]"; got != want {
		t.Fatalf("order %s, want %s", got, want)
	}
	// A priority that is changed counts at once.
	r.queueRun("x", 1, 4)
	r.queueRun("y", 2, 4)
	r.until("both are heard of", heard("x", "y"))
	r.runs(k, 1)
	r.ok(r.c.OpenRun(r.ctx, "x", 3, record.RunConfig{}, record.RunConfig{}))
	r.until("the change is heard of", func() bool {
		k.roster.mu.Lock()
		defer k.roster.mu.Unlock()
		return k.roster.runs["x"].Priority == 3
	})
	if got := fmt.Sprint(r.runs(k, 7)); got != "[x x x x y y y]" {
		t.Fatalf("order %s", got)
	}
}

// TestEqualRunsShare: of runs of one priority each gets its turn, whichever came
// first and however many jobs it has.
func TestEqualRunsShare(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.queueRun("large", 0, 60)
	r.queueRun("small", 0, 10)
	r.queueRun("other", 0, 10)
	count := map[string]int{}
	for i := range 3 {
		k, _ := r.worker(quick(fmt.Sprint("w", i)))
		for _, run := range r.runs(k, 9) {
			count[run]++
		}
	}
	for _, run := range []string{"large", "small", "other"} {
		if count[run] != 9 {
			t.Fatalf("of 27 jobs %v, want 9 of each", count)
		}
	}
}

// TestNewRunIsHeardOf: by a worker that waits on others, and by one that has none.
func TestNewRunIsHeardOf(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	cfg := quick("a")
	cfg.FetchWait = 0 // as it is outside tests
	k, _ := r.worker(cfg)
	b, _ := r.worker(quick("b"))
	for i, held := range []bool{false, true} {
		if held { // a job in another's hands keeps its run worth waiting on
			r.queueRun("held", 0, 1)
			defer vanish(r.next(b))
		}
		got := make(chan time.Time, 1)
		go func() {
			if l, err := k.Next(r.ctx, r.ctx); err == nil {
				got <- time.Now()
				_ = l.Done(r.ctx, record.Totals{})
			}
		}()
		time.Sleep(300 * time.Millisecond)
		r.queueRun(fmt.Sprint("new", i), 1, 1)
		queued := time.Now() // what queueing takes is not the worker's
		at := <-got
		t.Logf("a new run's job came after %s", at.Sub(queued).Round(time.Millisecond))
		if at.Sub(queued) > lookEvery/2 {
			t.Fatalf("heard of a new run after %s", at.Sub(queued))
		}
	}
}

// TestJobsOfJustNow: the server counts a run's jobs a little after it has acked them. A
// worker that looks in between takes them all the same, whether it has just come, or the
// run has, or more jobs of a run that had none left.
func TestJobsOfJustNow(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	queue := func(run string, epoch uint64, js []score.Job) {
		t.Helper()
		_, _, err := r.c.Submit(r.ctx, slices.Values(js), epoch)
		r.ok(err)
	}
	cfg := quick("a")
	cfg.FetchWait = 0 // as it is outside tests
	for i := range 8 {
		run := fmt.Sprint("new", i)
		js := makeJobs(run, 2)
		r.open(run, 0)
		queue(run, 1, js[:1])
		k, _ := r.worker(cfg)
		for part := range 2 {
			start := time.Now()
			l := r.next(k)
			if d := time.Since(start); d > lookEvery/2 {
				t.Fatalf("part %d of run %d came after %s", part, i, d)
			}
			r.ok(l.Done(r.ctx, record.Totals{}))
			if part == 0 {
				k.roster.look()
				queue(run, 1, js[1:])
			}
		}
		r.ok(r.c.CloseRun(r.ctx, run))
	}
}

// TestDeclinedRunHoldsNobodyUp: a run that a worker can't do costs it a look now
// and then.
func TestDeclinedRunHoldsNobodyUp(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.queueRun("cuda", 9, 20)
	r.queueRun("cpu", 0, 20)
	k, _ := r.worker(quick("a"))
	start, declined := time.Now(), 0
	for done := 0; done < 20; {
		l := r.next(k)
		if l.Job.Run == "cuda" {
			declined++
			r.ok(l.Decline(r.ctx, "needs cuda"))
			continue
		}
		done++
		r.ok(l.Done(r.ctx, record.Totals{}))
	}
	// The run is left alone for longer each time: a slow machine sees it more often.
	took, most := time.Since(start), 3
	for wait := shunFirst * 3 / 4 << most; wait-shunFirst*3/4 <= took; wait *= 2 {
		most++
	}
	if declined == 0 || declined > most || took > time.Minute {
		t.Fatalf("20 jobs took %s, with %d others declined", took, declined)
	}
}

func TestWorkerHoldsNoMoreThanItAskedFor(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	for i := range 5 {
		r.open(fmt.Sprint("r", i), i%2)
	}
	k, _ := r.worker(quick("a"))
	got := make(chan *Lease, 1)
	go func() {
		l, err := k.Next(r.ctx, r.ctx)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	for i := range 5 {
		r.submit(makeJobs(fmt.Sprint("r", i), 5), 1, 5, 0)
	}
	l := <-got
	time.Sleep(300 * time.Millisecond)
	if q := r.queue(); q.AckPending != 1 || len(q.Runs) != 6 {
		t.Fatalf("a worker that asked for one job holds %d, of %d runs", q.AckPending, len(q.Runs))
	}
	r.ok(l.Done(r.ctx, record.Totals{}))
}

// TestHoldRun: a paused run's jobs stay where they are, through a restart of the
// server, and what is in hand is finished.
func TestHoldRun(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.submit(makeJobs("run", 4), 1, 4, 0)
	k, _ := r.worker(quick("a"))
	l := r.next(k)
	r.ok(r.c.PauseRun(r.ctx, "run"))
	r.until("pausing is heard of",
		func() bool { k.roster.mu.Lock(); defer k.roster.mu.Unlock(); return k.roster.runs["run"].Paused })
	r.none(k, 500*time.Millisecond)
	r.ok(l.Done(r.ctx, record.Totals{}))
	r.srv.Shutdown()
	r.startServer()
	r.none(k, 1500*time.Millisecond)
	b, _ := r.worker(quick("b"))
	r.none(b, 500*time.Millisecond)
	r.until("the client that looks is back too", r.c.Connected)
	q, err := r.c.RunQueue(r.ctx, "run")
	r.ok(err)
	if !q.Paused || q.Pending != 3 {
		t.Fatalf("%+v", q)
	}
	r.ok(r.c.ResumeRun(r.ctx, "run"))
	start := time.Now()
	l = r.next(b)
	if d := time.Since(start); d > lookEvery/2 {
		t.Fatalf("resumed jobs came after %s", d)
	}
	r.ok(l.Done(r.ctx, record.Totals{}))
	r.runs(b, 2)
	r.empty()
}

// TestCancelDrops: a run that is closed gives no more jobs; leases of one that is
// to be dropped end, and those of other runs go on.
func TestCancelDrops(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.queueRun("gone", 0, 4)
	r.queueRun("stays", 0, 1)
	r.ok(r.c.PutRun(r.ctx, record.NewRun(manifest("gone", 4))))
	k, _ := r.worker(quick("a"))
	held := map[string]*Lease{}
	for range 2 {
		l := r.next(k)
		held[l.Job.Run] = l
	}
	cancel := func(drop bool) {
		_, err := r.c.UpdateRun(r.ctx, "gone", func(rec *record.Run) error {
			rec.State, rec.Drop = record.RunCancelled, drop
			return nil
		})
		r.ok(err)
		r.ok(r.c.CloseRun(r.ctx, "gone"))
	}
	cancel(false)
	r.none(k, 700*time.Millisecond)
	if held["gone"].Context().Err() != nil {
		t.Fatal("a job in hand was dropped, and nobody asked for that")
	}
	cancel(true)
	select {
	case <-held["gone"].Context().Done():
	case <-time.After(time.Minute):
		t.Fatal("the job in hand is not dropped")
	}
	r.is(context.Cause(held["gone"].Context()), ErrCancelled)
	_ = held["gone"].Abandon(r.ctx)
	if held["stays"].Context().Err() != nil {
		t.Fatal("a job of another run was dropped")
	}
	r.ok(held["stays"].Done(r.ctx, record.Totals{}))
	if _, err := r.c.RunQueue(r.ctx, "gone"); !errors.Is(err, ErrNoRun) {
		t.Fatalf("got %v", err)
	}
	r.ok(r.c.CloseRun(r.ctx, "gone")) // again is fine
	r.empty()
}

func TestDrain(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	c := r.client(conn.Config{})
	asked := make(chan struct{}, 1)
	r.ok(c.ListenDrain("w1", func() { asked <- struct{}{} }))
	r.ok(c.nc.FlushWithContext(r.ctx))
	r.ok(r.c.Drain(r.ctx, "w1"))
	<-asked
	r.is(r.c.Drain(r.ctx, "w2"), ErrNoWorker)
	r.is(r.c.Drain(r.ctx, "w.>"), ErrNoWorker)
}

// TestFrozenWorker: one that wakes after its ack wait learns that the job is
// another's, says so with the file and the job, and decides nothing.
func TestFrozenWorker(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 600 * time.Millisecond})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	a, _ := r.worker(quick("frozen"))
	b, _ := r.worker(quick("b"))
	l := r.next(a)
	l.halted.Do(func() { close(l.halt) }) // SIGSTOP: no heartbeat goes out
	l.beats.Wait()
	got := r.next(b)
	time.Sleep(r.run.AckWait) // twice the ack wait since the receipt, by now
	l.halt, l.halted = make(chan struct{}), sync.Once{}
	l.beats.Add(1)
	go func() { defer l.beats.Done(); l.beat() }() // SIGCONT
	select {
	case <-l.Context().Done():
	case <-time.After(time.Minute):
		t.Fatal("a worker that was frozen is not told")
	}
	r.is(context.Cause(l.Context()), ErrSuperseded)
	if !r.log.has("delivered again; giving it up") || !r.log.has(js[0].ID) || !r.log.has(`"file":"a.parquet"`) {
		t.Fatalf("log:\n%s", &r.log)
	}
	r.is(l.Retry(r.ctx, errBoom), ErrSuperseded)
	r.wantState(js[0], record.StateRunning, 0, 1)
	r.ok(got.Done(r.ctx, record.Totals{}))
	r.empty()
}

// TestFrozenBeforeTheStart: a worker frozen between the receipt of a job and its
// record takes it from nobody, and says what became of it.
func TestFrozenBeforeTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(r *rig, l *Lease)
		takes     bool // the job is found done, or is to be done again
		says      string
	}{
		"running": {func(*rig, *Lease) {}, false, "delivered again; giving it up"},
		"done":    {func(r *rig, l *Lease) { r.ok(l.Done(r.ctx, record.Totals{})) }, true, "which was delivered again"},
		"run over": {func(r *rig, l *Lease) { r.ok(l.Done(r.ctx, record.Totals{})); r.ok(r.c.CloseRun(r.ctx, "run")) },
			false, "giving the job back"},
	} {
		t.Run(name, func(t *testing.T) {
			// b must keep the job meanwhile: a busy machine may hold its heartbeats up.
			r := newRig(t, record.RunConfig{AckWait: 3 * time.Second})
			js := makeJobs("run", 1)
			r.submit(js, 1, 1, 0)
			a, _ := r.worker(quick("frozen"))
			got, thaw := make(chan struct{}), make(chan struct{})
			a.fetch = func(ctx context.Context, run string, wait time.Duration) (jetstream.Msg, error) {
				msg, err := a.pull(ctx, run, wait)
				if err == nil { // SIGSTOP
					close(got)
					<-thaw
				}
				return msg, err
			}
			ctx, stop := context.WithCancel(r.ctx)
			defer stop()
			leases := make(chan *Lease, 1)
			go func() {
				l, _ := a.Next(ctx, r.ctx) // ends with stop at the latest
				leases <- l
			}()
			<-got
			b, _ := r.worker(quick("b"))
			l := r.next(b)
			c.meanwhile(r, l)
			if name == "run over" {
				r.until("the run is gone from the roster", func() bool {
					_, there := a.roster.queue("run")
					return !there
				})
			}
			close(thaw) // SIGCONT
			r.until("it says so", func() bool { return r.log.has(c.says) })
			if !r.log.has(js[0].ID) {
				t.Error("it does not say which job")
			}
			if c.takes {
				if late := <-leases; late.Prior.State != record.StateDone {
					t.Errorf("prior %+v", late.Prior)
				}
				return
			}
			stop()
			if late := <-leases; late != nil {
				t.Errorf("it has the job: %+v", late.state)
			}
			if s := r.state(js[0]); s.Lost != 0 || s.Worker != "b" {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestDispatcherLease(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	acquire := func(c *Client, yields bool) (*DispatcherLease, error) {
		return c.AcquireRun(r.ctx, "run", AcquireOptions{Command: "submit", Yields: yields})
	}
	other := r.client(conn.Config{})
	l, err := acquire(r.c, false)
	r.ok(err)
	for _, yields := range []bool{false, true} {
		_, err = acquire(other, yields)
		r.is(err, ErrHeld)
		var held *HeldError
		if !errors.As(err, &held) || held.By.PID == 0 || held.By.Host == "" || time.Since(held.By.Since) > time.Minute {
			t.Fatalf("%v does not say who", err)
		}
	}
	if d, ok, err := other.Dispatcher(r.ctx, "run"); err != nil || !ok || d.Command != "submit" {
		t.Fatalf("%+v %v %v", d, ok, err)
	}
	l.Release()
	l.Release()
	if _, ok, err := other.Dispatcher(r.ctx, "run"); err != nil || ok {
		t.Fatalf("a lease that was released is there: %v", err)
	}
	// One that only watches yields to one that acts, not to another watcher.
	w, err := acquire(other, true)
	r.ok(err)
	_, err = acquire(r.c, true)
	r.is(err, ErrHeld)
	l, err = acquire(r.c, false)
	r.ok(err)
	select {
	case <-w.Lost():
	case <-time.After(2 * LeaseTTL):
		t.Fatal("a watcher does not learn that it was replaced")
	}
	if w.Held() || !l.Held() {
		t.Fatal("both have the run, or none")
	}
	w.Release() // must not take it from the new one
	if d, ok, _ := other.Dispatcher(r.ctx, "run"); !ok || d.Owner != l.me.Owner {
		t.Fatal("a lost lease was released for somebody else")
	}
	l.Release()
}

// TestDispatcherLeaseOfTheDead: nobody renews it, so it is taken over, whatever
// any clock says.
func TestDispatcherLeaseOfTheDead(t *testing.T) {
	if testing.Short() {
		t.Skip("short: waits for a lease to run out")
	}
	r := newRig(t, record.RunConfig{})
	dead := r.client(conn.Config{})
	l, err := dead.AcquireRun(r.ctx, "run", AcquireOptions{Command: "submit"})
	r.ok(err)
	l.stop() // as SIGKILL does
	<-l.done
	start := time.Now()
	next, err := r.c.AcquireRun(r.ctx, "run", AcquireOptions{Command: "resume", Patient: true})
	r.ok(err)
	if d := time.Since(start); d < LeaseTTL/2 || d > 2*LeaseTTL {
		t.Fatalf("taken over after %s", d)
	}
	if l.Held() {
		t.Fatal("the dead one thinks it has the run")
	}
	next.Release()
}

// TestDispatcherLeaseOfAProcess: the lease of a process that ended on this machine
// is free at once; that of one that lives, or of another machine, is not.
func TestDispatcherLeaseOfAProcess(t *testing.T) {
	if Machine() == "" {
		t.Skip("SKIPPED: this system does not tell what a pid means")
	}
	r := newRig(t, record.RunConfig{})
	child := exec.Command("sleep", "60")
	r.ok(child.Start())
	t.Cleanup(func() { _ = child.Process.Kill() })
	kv, err := r.c.bucket(r.ctx, leaseBucket)
	r.ok(err)
	host, err := os.Hostname()
	r.ok(err)
	put := func(by record.Dispatcher) {
		t.Helper()
		by.PID, by.Command = child.Process.Pid, "submit"
		b, err := by.Encode()
		r.ok(err)
		_, err = kv.Put(r.ctx, "run", b)
		r.ok(err)
	}
	here := record.Dispatcher{Owner: "x", Host: host, Machine: Machine()}
	held := func(by record.Dispatcher, what string) {
		t.Helper()
		put(by)
		if l, err := r.c.AcquireRun(r.ctx, "run", AcquireOptions{Command: "resume"}); !errors.Is(err, ErrHeld) {
			l.Release()
			t.Errorf("%s: got %v", what, err)
		}
	}
	held(here, "alive")
	r.ok(child.Process.Kill())
	_ = child.Wait() // killed
	held(record.Dispatcher{Owner: "x", Host: host}, "a machine that is not told")
	held(record.Dispatcher{Owner: "x", Host: host, Machine: "another"}, "another machine")
	held(record.Dispatcher{Owner: "x", Host: "another", Machine: Machine()}, "another host")
	put(here)
	l, err := r.c.AcquireRun(r.ctx, "run", AcquireOptions{Command: "resume"})
	r.ok(err)
	l.Release()
}

// TestSettleAfterWipe: what a worker holds of a queue that was made anew is settled
// at once, and takes nothing from the new one.
func TestSettleAfterWipe(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.submit(makeJobs("run", 3), 1, 3, 0)
	k, kc := r.worker(quick("a"))
	a, b, c := r.next(k), r.next(k), r.next(k)
	r.srv.Shutdown()
	r.cfg.StoreDir = t.TempDir()
	r.startServer()
	r.until("both are connected again", func() bool { return r.c.Connected() && kc.Connected() })
	r.ok(r.c.Setup(r.ctx, Topology{}))
	r.open("run", 0)
	other := makeJobs("run", 6)[3:] // at the same places in the stream
	r.submit(other, 1, 3, 0)
	k2, _ := r.worker(quick("b"))
	held := []*Lease{r.next(k2), r.next(k2)}
	start := time.Now()
	r.is(a.Done(r.ctx, record.Totals{}), ErrNotAcked)
	r.ok(b.Retry(r.ctx, errBoom))
	r.ok(c.Fail(r.ctx, errBoom))
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("settled after %s", d)
	}
	if q := r.queue(); q.Messages != 3 || q.AckPending != 2 {
		t.Errorf("the new queue has %d jobs, %d in hand; want 3, 2", q.Messages, q.AckPending)
	}
	for _, l := range held {
		r.ok(l.Done(r.ctx, record.Totals{}))
	}
}

// TestLeaseIsRacedFor: of many that want a run one gets it.
func TestLeaseIsRacedFor(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	var mu sync.Mutex
	var got []*DispatcherLease
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			l, err := r.c.AcquireRun(r.ctx, "run", AcquireOptions{Command: "submit"})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				got = append(got, l)
			} else if !errors.Is(err, ErrHeld) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Fatalf("%d have the run", len(got))
	}
	got[0].Release()
}

// TestStrays: messages of a run that nobody knows become dead letters; those of one
// that is about to be opened wait for it, and those of one that is over go.
func TestStrays(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	for _, run := range []string{"unknown", "planned", "complete", "cancelled"} {
		js := makeJobs(run, 1)
		b, err := js[0].Encode()
		r.ok(err)
		_, err = r.c.js.Publish(r.ctx, jobSubject(run, js[0].ID), b)
		r.ok(err)
	}
	for run, state := range map[string]record.RunState{"planned": record.RunPlanned, "complete": record.RunComplete,
		"cancelled": record.RunCancelled} {
		rec := record.NewRun(manifest(run, 1))
		rec.State = state
		r.ok(r.c.PutRun(r.ctx, rec))
	}
	done := makeJobs("complete", 1)[0]
	b, err := record.Job{Run: done.Run, Job: done.ID, State: record.StateDone}.Encode()
	r.ok(err)
	_, err = r.c.js.Publish(r.ctx, "$KV."+JobBucket+"."+done.Run+"."+done.ID, b)
	r.ok(err)
	r.ok(r.c.sweep(r.ctx))
	r.wantState(done, record.StateDone, 0, 0)
	if d := r.dead(""); len(d) != 1 || d[0].Run != "unknown" || d[0].Job == nil {
		t.Fatalf("dead letters %+v", d)
	}
	r.open("planned", 0)
	k, _ := r.worker(quick("a"))
	r.runs(k, 1)
	r.empty()
}

// TestNoticeDuringALook: jobs that are queued while the runs are looked at are not
// forgotten until the next look.
func TestNoticeDuringALook(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.ok(r.c.OpenRun(r.ctx, "x", 0, record.RunConfig{}, record.RunConfig{}))
	roster := newRoster(r.c, r.c.log)
	r.ok(roster.refresh(r.ctx))
	if runs, _, _ := roster.order(time.Now()); len(runs) != 2 {
		t.Fatalf("runs heard of just now, whose jobs may not be counted yet: %v", runs)
	}
	heard := func(run string, at time.Time) {
		roster.mu.Lock()
		defer roster.mu.Unlock()
		roster.runs[run].heard = at
	}
	heard("x", time.Time{})
	heard("run", time.Time{})
	r.ok(roster.refresh(r.ctx))
	if runs, _, _ := roster.order(time.Now()); len(runs) != 0 {
		t.Fatalf("runs to take jobs of: %v", runs)
	}
	heard("x", time.Now().Add(time.Minute)) // a notice after the request, before its answer
	r.ok(roster.refresh(r.ctx))
	if runs, _, _ := roster.order(time.Now()); len(runs) != 1 {
		t.Fatal("the notice is forgotten")
	}
}
