package jobs

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
)

// One test for each trap of long jobs on JetStream, named after it.

func TestTrapPrefetch(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.submit(makeJobs("run", 50), 1, 50, 0)
	r.until("all are counted", func() bool { return r.queue().Pending == 50 })
	a, _ := r.worker(quick("a"))
	b, _ := r.worker(quick("b"))
	r.next(a)
	if q := r.queue(); q.AckPending != 1 || q.Pending != 49 {
		t.Fatalf("a worker that asked for one job holds %d; %d are left", q.AckPending, q.Pending)
	}
	for range 49 {
		r.ok(r.next(b).Done(r.ctx, record.Totals{}))
	}
	// Nor does the server let anyone take more at once.
	batch, err := r.handle().Fetch(50, jetstream.FetchMaxWait(time.Minute)) // a refusal ends it
	r.ok(err)
	for range batch.Messages() {
		t.Fatal("a request for 50 jobs got one")
	}
	if batch.Error() == nil {
		t.Fatal("a request for 50 jobs was not refused")
	}
}

func TestTrapAckWaitRunsFromDelivery(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 3 * time.Second}) // a busy machine may hold heartbeats up
	r.submit(makeJobs("run", 1), 1, 1, 0)
	a, _ := r.worker(quick("a"))
	b, _ := r.worker(quick("b"))
	l := r.next(a)
	// The worker has not called the lease at all: it is heartbeaten from receipt.
	r.none(b, 7*time.Second)
	r.ok(l.Done(r.ctx, record.Totals{}))
	r.empty()
}

func TestTrapWorkerVanishes(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 500 * time.Millisecond})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	a, _ := r.worker(quick("a"))
	b, _ := r.worker(quick("b"))
	start := time.Now() // before the delivery: what comes back does so AckWait after it, or later
	vanish(r.next(a))
	l := r.next(b)
	if d := time.Since(start); d < 400*time.Millisecond {
		t.Fatalf("redelivered after %s, before AckWait", d)
	}
	if l.Attempt != 2 || l.Prior.Worker != "a" {
		t.Fatalf("attempt %d after %q, want 2 after a", l.Attempt, l.Prior.Worker)
	}
	r.wantState(js[0], record.StateRunning, 0, 1)
	r.ok(l.Done(r.ctx, record.Totals{Documents: 10}))
	if s := r.wantState(js[0], record.StateDone, 0, 1); s.Totals.Documents != 10 || s.Worker != "b" {
		t.Fatalf("state %+v", s)
	}
	r.empty()
}

func TestTrapBackOffReplacesAckWait(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 30 * time.Second})
	if cfg := r.handle().CachedInfo().Config; len(cfg.BackOff) != 0 || cfg.AckWait != 30*time.Second {
		t.Fatalf("BackOff %v, AckWait %s", cfg.BackOff, cfg.AckWait)
	}
}

func TestTrapBareNak(t *testing.T) {
	r := newRig(t, record.RunConfig{MaxAttempts: 3})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	cfg := quick("a")
	cfg.RetryDelay = 400 * time.Millisecond
	k, _ := r.worker(cfg)
	l := r.next(k)
	for i, least := range []time.Duration{300 * time.Millisecond, 600 * time.Millisecond} {
		if l.Attempt != i+1 {
			t.Fatalf("attempt %d, want %d", l.Attempt, i+1)
		}
		start := time.Now()
		r.ok(l.Retry(r.ctx, errBoom))
		r.wantState(js[0], record.StateFailed, i+1, 0)
		l = r.next(k)
		if d := time.Since(start); d < least { // 0.75 of the delay, doubled each time
			t.Fatalf("attempt %d came after %s, want %s or more", l.Attempt, d, least)
		}
	}
	r.ok(l.Retry(r.ctx, errBoom))
	if s := r.wantState(js[0], record.StateDead, 3, 0); s.Error != "attempt 3 of 3 failed: boom" {
		t.Fatalf("error %q", s.Error)
	}
	d := r.dead("run")
	if len(d) != 1 || d[0].ID != js[0].ID || d[0].Attempts != 3 || d[0].Job == nil ||
		d[0].Reason != "attempt 3 of 3 failed: boom" {
		t.Fatalf("dead letters %+v", d)
	}
	r.empty()
}

func TestTrapDelayedNaksHoldAckPending(t *testing.T) {
	r := newRig(t, record.RunConfig{MaxAckPending: 2})
	r.submit(makeJobs("run", 3), 1, 3, 0)
	cfg := quick("a")
	cfg.FetchWait, cfg.RetryDelay, cfg.IdleAfter = 400*time.Millisecond, 10*time.Second, 100*time.Millisecond
	k, _ := r.worker(cfg)
	r.ok(r.next(k).Retry(r.ctx, errBoom))
	r.ok(r.next(k).Retry(r.ctx, errBoom))
	r.none(k, 3*time.Second) // the third waits behind two that are delayed
	if !r.log.has("MaxAckPending") {
		t.Fatalf("the worker does not say why it idles:\n%s", &r.log)
	}
	for range 3 {
		r.ok(r.next(k).Done(r.ctx, record.Totals{}))
	}
	if d := (record.RunConfig{}).WithDefaults().MaxAckPending; d < 16384 {
		t.Fatalf("default MaxAckPending %d is not well above workers × jobs held or delayed", d)
	}
}

func TestTrapHeartbeatLost(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: time.Second})
	r.submit(makeJobs("run", 1), 1, 1, 0)
	cfg := quick("a")
	cfg.Heartbeat = 500 * time.Millisecond // more than the queue bears
	k, _ := r.worker(cfg)
	l := r.next(k)
	every := k.cfg.beat(l.run.AckWait)
	if every > l.run.AckWait/3 {
		t.Fatalf("heartbeat %s, AckWait %s", every, l.run.AckWait)
	}
	// Two heartbeats in three may get lost: acting on the third alone is enough.
	if 3*every > l.run.AckWait+time.Millisecond {
		t.Fatal("one lost heartbeat loses the job")
	}
	r.ok(l.Done(r.ctx, record.Totals{}))
}

func TestTrapHeartbeatLies(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 3 * time.Second}) // a busy machine may hold heartbeats up
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	cfg := quick("hung")
	cfg.StallAfter = 3 * time.Second
	a, _ := r.worker(cfg)
	b, _ := r.worker(quick("b"))
	l := r.next(a)
	for range 5 { // progress keeps it
		time.Sleep(400 * time.Millisecond)
		l.Progress()
	}
	if l.Context().Err() != nil {
		t.Fatal("a job that moves was let go")
	}
	<-l.Context().Done() // then the kernel hangs
	r.is(context.Cause(l.Context()), ErrStalled)
	got := r.next(b)
	if got.Attempt != 2 || got.Prior.Worker != "hung" {
		t.Fatalf("attempt %d after %q", got.Attempt, got.Prior.Worker)
	}
	// Its worker, awake again, may no longer send the job away from b.
	r.is(l.Retry(r.ctx, context.Cause(l.Context())), ErrSuperseded)
	r.wantState(js[0], record.StateRunning, 0, 1)
	r.none(a, time.Second)
	r.ok(got.Done(r.ctx, record.Totals{}))
	r.empty()
}

func TestTrapStalledJobIsRetried(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 5 * time.Second})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	cfg := quick("a")
	cfg.Heartbeat, cfg.StallAfter = 50*time.Millisecond, 200*time.Millisecond
	k, _ := r.worker(cfg)
	l := r.next(k)
	<-l.Context().Done()
	r.ok(l.Retry(r.ctx, context.Cause(l.Context())))
	r.wantState(js[0], record.StateFailed, 1, 0)
	r.ok(r.next(k).Done(r.ctx, record.Totals{}))
}

func TestTrapAckIsNoFence(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 400 * time.Millisecond})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	a, _ := r.worker(quick("zombie"))
	b, _ := r.worker(quick("b"))
	zombie := r.next(a)
	zombie.halted.Do(func() { close(zombie.halt) }) // frozen: no heartbeats, not settled
	zombie.beats.Wait()
	l := r.next(b)
	r.ok(zombie.Done(r.ctx, record.Totals{Documents: 10, SumNLL: 1.5})) // the server takes its ack
	r.empty()
	r.ok(l.Done(r.ctx, record.Totals{Documents: 10, SumNLL: 1.5})) // and the rightful holder's
	if s := r.wantState(js[0], record.StateDone, 0, 0); s.Totals.SumNLL != 1.5 {
		t.Fatalf("totals %+v", s.Totals)
	}
	r.none(b, 500*time.Millisecond)
}

func TestTrapMaxDeliverKeepsTheMessage(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 300 * time.Millisecond, MaxDeliver: 2})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	k, _ := r.worker(quick("a"))
	vanish(r.next(k))
	vanish(r.next(k))
	r.none(k, 700*time.Millisecond)
	r.until("MaxDeliver", func() bool { return r.queue().AckPending == 0 })
	if q := r.queue(); q.Messages != 1 || q.Pending != 0 {
		t.Fatalf("the trap is gone: %+v", q)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan error, 1)
	go func() { done <- r.c.Reap(ctx) }()
	r.until("a dead letter", func() bool { return len(r.dead("run")) == 1 })
	r.empty()
	d := r.dead("")[0]
	if d.ID != js[0].ID || d.Job == nil || d.Deliveries != 2 || d.Worker != "" {
		t.Fatalf("dead letter %+v", d)
	}
	r.wantState(js[0], record.StateDead, 0, 2) // both workers vanished
	r.submit(js, 2, 1, 0)                      // and a person can submit it again
	r.ok(r.next(k).Done(r.ctx, record.Totals{}))
	r.wantState(js[0], record.StateDone, 0, 0)
	if d := r.dead("run"); len(d) != 0 {
		t.Fatalf("the letter of a job that is done stayed: %+v", d)
	}
	cancel()
	r.is(<-done, context.Canceled)
}

func TestTrapMaxDeliverAdvisoryLost(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 300 * time.Millisecond, MaxDeliver: 1})
	js := makeJobs("run", 3)
	r.submit(js, 1, 3, 0)
	k, _ := r.worker(quick("a"))
	vanish(r.next(k))
	r.ok(r.next(k).Done(r.ctx, record.Totals{}))
	vanish(r.next(k))
	r.until("MaxDeliver", func() bool { q := r.queue(); return q.Messages == 2 && q.AckPending == 0 })
	r.ok(r.c.js.DeleteStream(r.ctx, eventStream))
	r.ok(r.c.Setup(r.ctx, Topology{}))
	r.ok(r.c.sweep(r.ctx))
	r.empty()
	if d := r.dead("run"); len(d) != 2 {
		t.Fatalf("dead letters %+v", d)
	}
}

func TestTrapJobKillsItsWorkers(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 200 * time.Millisecond, MaxLost: 3})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	k, _ := r.worker(quick("a"))
	for i := range 3 {
		l := r.next(k)
		if l.Attempt != i+1 {
			t.Fatalf("attempt %d, want %d", l.Attempt, i+1)
		}
		vanish(l)
	}
	r.until("the fourth finds it over", func() bool {
		r.none(k, 600*time.Millisecond)
		return r.state(js[0]).State != record.StateRunning
	})
	r.wantState(js[0], record.StateDead, 0, 3)
	if d := r.dead("run"); len(d) != 1 || d[0].Attempts != 3 {
		t.Fatalf("dead letters %+v", d)
	}
	r.empty()
}

func TestTrapDrainsAreNotAttempts(t *testing.T) {
	r := newRig(t, record.RunConfig{MaxAttempts: 2, MaxLost: 2})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	cfg := quick("a")
	cfg.BackDelay = 60 * time.Millisecond // seconds, after seven deliveries
	k, _ := r.worker(cfg)
	for range 6 {
		l := r.next(k)
		if l.Attempt != 1 {
			t.Fatalf("attempt %d, want 1", l.Attempt)
		}
		r.ok(l.Abandon(r.ctx))
		r.wantState(js[0], record.StateWaiting, 0, 0)
	}
	start := time.Now()
	l := r.next(k)
	if d := time.Since(start); d > l.run.AckWait/2 { // which is what a job that is not given back waits
		t.Fatalf("a job given back waited %s", d)
	}
	r.ok(l.Decline(r.ctx, "needs cuda"))
	if s := r.wantState(js[0], record.StateWaiting, 0, 0); s.Error != "declined: needs cuda" {
		t.Fatalf("error %q", s.Error)
	}
	r.none(k, 300*time.Millisecond)
	r.ok(r.next(k).Done(r.ctx, record.Totals{}))
}

func TestTrapWorkQueueHasOneConsumerASubject(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	for _, filter := range []string{"", jobSubject("run", "*"), jobSubjects} {
		_, err := r.c.js.CreateConsumer(r.ctx, jobStream, jetstream.ConsumerConfig{
			Durable: "second", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: filter,
		})
		var api *jetstream.APIError
		if !errors.As(err, &api) || api.ErrorCode != 10099 && api.ErrorCode != 10100 {
			t.Fatalf("filter %q: got %v, want error code 10099 or 10100", filter, err)
		}
	}
	r.open("another", 0) // filters that don't overlap are what there may be many of
	// So what people browse is on streams of its own.
	for _, name := range []string{deadStream, eventStream} {
		s, err := r.c.js.Stream(r.ctx, name)
		r.ok(err)
		if s.CachedInfo().Config.Retention != jetstream.LimitsPolicy {
			t.Fatalf("%s has retention %v", name, s.CachedInfo().Config.Retention)
		}
	}
}

func TestTrapDedupeWindow(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 4)
	r.submit(js, 1, 4, 0)
	r.submit(js, 1, 0, 4) // inside the window, same id
	k, _ := r.worker(quick("a"))
	gone := r.next(k)
	r.ok(gone.Done(r.ctx, record.Totals{}))
	// The same epoch again: the server would drop the job, and we say so.
	q, a, err := r.c.Submit(r.ctx, slices.Values(js), 1)
	r.is(err, ErrEpochUsed)
	if q != 0 || a != 3 {
		t.Fatalf("%d queued, %d already; want 0, 3", q, a)
	}
	r.submit(js, 2, 1, 3) // a new one is taken
	if q := r.queue(); q.Messages != 4 {
		t.Fatalf("%d messages, want 4", q.Messages)
	}
}

func TestTrapDedupeForgets(t *testing.T) {
	r := newRigWith(t, Topology{Duplicates: 200 * time.Millisecond}, record.RunConfig{})
	js := makeJobs("run", 4)
	r.submit(js, 1, 4, 0)
	time.Sleep(600 * time.Millisecond)
	r.submit(js, 1, 0, 4) // the per-subject limit holds on
	if q := r.queue(); q.Messages != 4 {
		t.Fatalf("%d messages, want 4", q.Messages)
	}
}

func TestTrapPerSubjectLimit(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 2)
	r.submit(js, 1, 2, 0)
	r.submit(js, 2, 0, 2) // 10077
	k, _ := r.worker(quick("a"))
	l := r.next(k)
	r.submit(js, 3, 0, 2) // one of them in a worker's hands
	r.ok(l.Done(r.ctx, record.Totals{}))
	r.submit(js, 4, 1, 1) // accepted again once acked
}

func TestTrapUpdateRewritesALiveDurable(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 20 * time.Second, MaxAttempts: 3})
	r.submit(makeJobs("run", 2), 1, 2, 0)
	k, _ := r.worker(quick("a"))
	l := r.next(k)
	get := func() jetstream.ConsumerConfig {
		return r.handle().CachedInfo().Config
	}
	open := func(cfg record.RunConfig) error { return r.c.OpenRun(r.ctx, "run", 0, cfg, record.RunConfig{}) }
	r.ok(open(record.RunConfig{}))                          // as it is
	r.ok(open(record.RunConfig{AckWait: 20 * time.Second})) // the same
	drifts := func(err error) {
		t.Helper()
		r.is(err, ErrDrift)
		var d *DriftError
		if !errors.As(err, &d) || len(d.Diffs) == 0 {
			t.Fatalf("%v does not say what differs", err)
		}
	}
	for _, cfg := range []record.RunConfig{{AckWait: 30 * time.Second}, {MaxAttempts: 7}, {MaxDeliver: 9},
		{MaxAckPending: 9}} {
		drifts(open(cfg))
	}
	drifts(r.c.Setup(r.ctx, Topology{Duplicates: time.Minute}))
	if cfg := get(); cfg.AckWait != 20*time.Second || cfg.MaxDeliver != 1000 {
		t.Fatalf("the consumer was changed: %+v", cfg)
	}
	if l.run.MaxAttempts != 3 || l.run.AckWait != 20*time.Second {
		t.Fatalf("the worker lives on %+v", l.run)
	}
	// A priority is no setting that workers live on.
	r.ok(r.c.OpenRun(r.ctx, "run", 7, record.RunConfig{}, record.RunConfig{}))
	if cfg := get(); cfg.AckWait != 20*time.Second || cfg.Metadata[metaPriority] != "7" || cfg.MaxAckPending != 65536 {
		t.Fatalf("after a change of priority: %+v", cfg)
	}
	r.ok(l.Done(r.ctx, record.Totals{}))
	// Changed by someone else, a worker refuses it.
	cfg := get()
	cfg.MaxAckPending, cfg.Metadata[metaMonitorAcks] = 5, "7"
	_, err := r.c.js.UpdateConsumer(r.ctx, jobStream, cfg)
	r.ok(err)
	drifts(open(record.RunConfig{}))
	b, _ := r.worker(quick("b"))
	r.none(b, time.Second)
	if !r.log.has("taking no jobs of this run") {
		t.Fatalf("the worker does not say why it idles:\n%s", &r.log)
	}
}

func TestTrapSilenceWithMessagesPending(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.submit(makeJobs("run", 1), 1, 1, 0)
	cfg := quick("a")
	cfg.IdleAfter = 200 * time.Millisecond
	k, c := r.worker(cfg)
	stalled := true
	k.fetch = func(ctx context.Context, run string, wait time.Duration) (jetstream.Msg, error) {
		if stalled && r.log.has("reconnecting") && c.nc.Stats().Reconnects > 0 {
			stalled = false
		}
		if stalled {
			conn.Sleep(ctx, 50*time.Millisecond)
			return nil, jetstream.ErrNoMessages
		}
		return k.pull(ctx, run, wait)
	}
	r.ok(r.next(k).Done(r.ctx, record.Totals{}))
	if !r.log.has("renewing the consumers' handles") || !r.log.has("reconnecting") {
		t.Fatalf("log:\n%s", &r.log)
	}
}

func TestTrapQueueIsDisposable(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 3)
	r.submit(js, 1, 3, 0)
	k, _ := r.worker(quick("a"))
	r.ok(r.next(k).Done(r.ctx, record.Totals{}))
	for _, s := range []string{jobStream, deadStream, eventStream, "KV_" + JobBucket, "KV_" + runBucket,
		"KV_" + workerBucket, "KV_" + leaseBucket} {
		r.ok(r.c.js.DeleteStream(r.ctx, s))
	}
	// The dispatcher starts from nothing with what has no output yet; the worker
	// that waited through it goes on.
	got := make(chan *Lease)
	go func() {
		l, err := k.Next(r.ctx, r.ctx)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	time.Sleep(200 * time.Millisecond)
	r.ok(r.c.Setup(r.ctx, Topology{}))
	r.open("run", 0)
	r.submit(js[1:], 1, 2, 0)
	r.ok((<-got).Done(r.ctx, record.Totals{}))
	r.ok(r.next(k).Done(r.ctx, record.Totals{}))
	r.empty()
}
