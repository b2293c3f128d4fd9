package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

func TestSubmitManyJobs(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	n := 20000
	if raceEnabled {
		n = 4000
	}
	js := makeJobs("run", n)
	start := time.Now()
	r.submit(js, 1, n, 0)
	d := time.Since(start)
	t.Logf("%d jobs queued in %s: %.0f a second", n, d.Round(time.Millisecond), float64(n)/d.Seconds())
	r.until("all are counted", func() bool { return r.queue().Pending >= uint64(n) })
	if q := r.queue(); q.Messages != uint64(n) || q.Pending != uint64(n) || time.Since(q.Oldest) > 3*time.Minute {
		t.Fatalf("queue %+v", q)
	}
	start = time.Now()
	r.submit(js, 2, 0, n)
	d = time.Since(start)
	t.Logf("submitted again in %s: %.0f a second", d.Round(time.Millisecond), float64(n)/d.Seconds())
	start = time.Now()
	r.ok(r.c.PurgeRun(r.ctx, "run"))
	t.Logf("purged in %s", time.Since(start).Round(time.Millisecond))
	if q := r.queue(); q.Messages != 0 {
		t.Fatalf("queue %+v", q)
	}
}

func TestSubmitThroughRestart(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	n := 3000
	js := makeJobs("run", n)
	sent := 0
	half := make(chan struct{})
	seq := func(yield func(score.Job) bool) {
		for _, j := range js {
			if sent++; sent == n/2 {
				close(half)
			}
			if !yield(j) {
				return
			}
		}
	}
	type result struct {
		queued, already int
		err             error
	}
	got := make(chan result, 1)
	go func() {
		q, a, err := r.c.Submit(r.ctx, seq, 1)
		got <- result{q, a, err}
	}()
	<-half
	r.srv.Shutdown()
	r.startServer()
	res := <-got
	r.ok(res.err)
	if q := r.queue(); q.Messages != uint64(n) || res.queued+res.already != n {
		t.Fatalf("%d messages, %d queued, %d already; want %d", q.Messages, res.queued, res.already, n)
	}
}

func TestSubmitStops(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 3)
	js[1].Run = "Not a run.>"
	q, _, err := r.c.Submit(r.ctx, slices.Values(js), 1)
	r.is(err, score.ErrBadJob)
	if q != 0 {
		t.Fatalf("%d counted", q)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	_, _, err = r.c.Submit(ctx, slices.Values(makeJobs("run", 3)), 1)
	r.is(err, context.Canceled)
	r.srv.Shutdown()
	ctx, cancel = context.WithTimeout(r.ctx, 500*time.Millisecond)
	defer cancel()
	_, _, err = r.c.Submit(ctx, slices.Values(makeJobs("run", 3)), 1)
	r.is(err, context.DeadlineExceeded)
}

func TestTwoRunsOnOneStream(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 3 * time.Second}) // a busy machine may hold heartbeats up
	one, two := makeJobs("one", 5), makeJobs("two", 5)
	r.open("one", 0)
	r.open("two", 0)
	r.submit(one, 1, 5, 0)
	r.submit(two, 1, 5, 0)
	k, _ := r.worker(quick("a"))
	held := map[string][]*Lease{}
	for range 6 {
		l := r.next(k)
		held[l.Job.Run] = append(held[l.Job.Run], l)
	}
	if len(held["one"]) != 3 || len(held["two"]) != 3 {
		t.Fatalf("%d jobs of one run and %d of the other were taken, want 3 and 3", len(held["one"]), len(held["two"]))
	}
	r.ok(r.c.PurgeRun(r.ctx, "one"))
	if q := r.queue(); q.Messages != 5 {
		t.Fatalf("%d messages, want 5", q.Messages)
	}
	// The other run's deliveries in hand are as they were: heartbeats, Naks, acks.
	r.none2(k, 2, 4*time.Second)
	other := held["two"][0]
	r.ok(other.Retry(r.ctx, errBoom))
	if l := r.next(k); l.Job.ID != other.Job.ID || l.Attempt != 2 {
		t.Fatalf("got job %s attempt %d, want %s attempt 2", l.Job.ID, l.Attempt, other.Job.ID)
	} else {
		r.ok(l.Done(r.ctx, record.Totals{}))
	}
	r.ok(held["two"][1].Done(r.ctx, record.Totals{}))
	r.ok(held["two"][2].Done(r.ctx, record.Totals{}))
	r.ok(held["one"][0].Done(r.ctx, record.Totals{})) // of the purged run: harmless
	r.ok(held["one"][1].Retry(r.ctx, errBoom))
	r.empty()
	if err := r.c.PurgeRun(r.ctx, "*"); err == nil {
		t.Fatal("PurgeRun took a wildcard")
	}
}

// none2 takes and finishes n jobs of other runs, then checks that no more come.
func (r *rig) none2(k *Consumer, n int, d time.Duration) {
	r.t.Helper()
	for range n {
		r.ok(r.next(k).Done(r.ctx, record.Totals{}))
	}
	r.none(k, d)
}

func TestBadMessages(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 2)
	good, err := js[0].Encode()
	r.ok(err)
	future := bytes.Replace(good, []byte(`"v":1`), []byte(`"v":2`), 1)
	bad := map[string][]byte{
		"surprisal.job.run.empty":    nil,
		"surprisal.job.run.noise":    []byte("\x00\xff not json"),
		"surprisal.job.run.version":  future,
		"surprisal.job.run.other":    good, // under another job's subject
		"surprisal.job.run.long":     bytes.Repeat([]byte("x"), score.MaxJobBytes+1),
		"surprisal.job.RUN.job":      []byte("{}"),
		"surprisal.job.rün.jöb":      []byte("{}"),
		"surprisal.job.$x.=y":        []byte("{}"),
		"surprisal.job.run.controls": []byte("{\"v\":1,\"id\":\"a\x1b[31m\"}"),
	}
	for subject, data := range bad {
		_, err := r.c.js.Publish(r.ctx, subject, data)
		r.ok(err)
	}
	r.submit(js[1:], 1, 1, 0)
	// What is larger yet does not even get in.
	_, err = r.c.js.Publish(r.ctx, "surprisal.job.run.huge", bytes.Repeat([]byte("x"), score.MaxJobBytes+2*headerRoom))
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != 10054 {
		t.Fatalf("got %v, want error code 10054", err)
	}
	k, _ := r.worker(quick("a"))
	if l := r.next(k); l.Job.ID != js[1].ID { // past all of them
		t.Fatalf("got %s", l.Job.ID)
	} else {
		r.ok(l.Done(r.ctx, record.Totals{}))
	}
	r.none(k, 300*time.Millisecond)
	r.ok(r.c.sweep(r.ctx)) // and those of no run
	r.empty()
	letters := r.dead("")
	if len(letters) != len(bad) {
		t.Fatalf("%d dead letters, want %d: %+v", len(letters), len(bad), letters)
	}
	for _, d := range letters {
		data, ok := bad["surprisal.job."+d.Run+"."+d.ID]
		if !ok || d.Reason == "" || (d.Worker != "a") != (d.Run != "run") || strings.ContainsRune(d.Reason, '\x1b') {
			t.Errorf("dead letter %+v", d)
		}
		if d.ID == "version" && !strings.Contains(d.Reason, "version 2") {
			t.Errorf("reason %q", d.Reason)
		}
		if !bytes.HasPrefix(data, d.Raw) {
			t.Errorf("raw %q", d.Raw)
		}
	}
}

func TestFailIsDeadAtOnce(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	k, _ := r.worker(quick("a"))
	l := r.next(k)
	r.ok(l.Fail(r.ctx, fmt.Errorf("input changed:\n%s", strings.Repeat("é", 5000))))
	s := r.wantState(js[0], record.StateDead, 1, 0)
	if len(s.Error) > record.MaxError || !strings.HasPrefix(s.Error, "input changed: é") || !strings.HasSuffix(s.Error,
		"…") {
		t.Fatalf("error of %d bytes: %.40q", len(s.Error), s.Error)
	}
	r.is(l.Done(r.ctx, record.Totals{}), ErrSettled)
	if l.Context().Err() == nil {
		t.Fatal("the context of a settled lease lives")
	}
	r.empty()
}

// A worker that dies between the dead letter and the Term leaves a message that
// the next one terminates, uncounted and without a second letter.
func TestDeadLetterBeforeTerm(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 300 * time.Millisecond})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	k, _ := r.worker(quick("a"))
	l := r.next(k)
	_, err := r.c.putLetter(r.ctx, record.DeadLetter{Run: "run", ID: js[0].ID, Job: &js[0], Reason: "no good",
		Attempts: 1})
	r.ok(err)
	r.ok(l.update(r.ctx, func(record.Job, bool) (record.Job, error) {
		s := l.state
		s.State, s.Error, s.Failed = record.StateDead, "no good", 1
		return s, nil
	}))
	vanish(l)
	r.until("the next one ends it", func() bool { r.none(k, time.Second); return r.queue().Messages == 0 })
	r.empty()
	if d := r.dead("run"); len(d) != 1 || d[0].Reason != "no good" || d[0].Attempts != 1 {
		t.Fatalf("dead letters %+v", d)
	}
	r.wantState(js[0], record.StateDead, 1, 0)
}

func TestDoneWhoseAckGotLost(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 300 * time.Millisecond})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	k, _ := r.worker(quick("a"))
	l := r.next(k)
	tot := record.Totals{Documents: 10, Tokens: 1000, SumNLL: 3.25}
	r.ok(l.update(r.ctx, func(record.Job, bool) (record.Job, error) {
		s := l.state
		s.State, s.Totals = record.StateDone, &tot
		return s, nil
	}))
	vanish(l)
	l = r.next(k)
	if l.Prior.State != record.StateDone || *l.Prior.Totals != tot || l.Attempt != 1 {
		t.Fatalf("prior %+v, attempt %d", l.Prior, l.Attempt)
	}
	r.ok(l.Done(r.ctx, *l.Prior.Totals))
	r.wantState(js[0], record.StateDone, 0, 0)
	r.empty()
}

func TestNumbersThatJSONHasNot(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	k, _ := r.worker(quick("a"))
	r.ok(r.next(k).Done(r.ctx, record.Totals{SumNLL: math.Inf(1), Tokens: 5}))
	if s := r.wantState(js[0], record.StateDone, 0, 0); s.Error != "sum_nll is +Inf" || s.Totals.Tokens != 5 {
		t.Fatalf("state %+v", s)
	}
}

func TestManyWorkers(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	const n = 400
	r.submit(makeJobs("run", n), 1, n, 0)
	var done atomic.Int64
	seen := sync.Map{}
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	var wg sync.WaitGroup
	start := time.Now()
	for i := range 4 {
		k, _ := r.worker(quick(fmt.Sprintf("w%d", i)))
		for range 2 { // a consumer serves several goroutines
			wg.Go(func() {
				for {
					l, err := k.Next(ctx, r.ctx)
					if err != nil {
						if !errors.Is(err, context.Canceled) {
							t.Error(err)
						}
						return
					}
					if _, dup := seen.LoadOrStore(l.Job.ID, true); dup {
						t.Errorf("job %s came twice", l.Job.ID)
					}
					if err := l.Done(r.ctx, record.Totals{Documents: 10}); err != nil {
						t.Error(err)
					}
					if done.Add(1) == n {
						cancel()
					}
				}
			})
		}
	}
	wg.Wait()
	t.Logf("%d jobs taken, recorded and acked in %s: %.0f a second", n, time.Since(start).Round(time.Millisecond),
		n/time.Since(start).Seconds())
	r.empty()
}

func TestFetchEndsLeaseGoesOn(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.submit(makeJobs("run", 1), 1, 1, 0)
	k, _ := r.worker(quick("a"))
	fetch, stop := context.WithCancel(r.ctx)
	work, abort := context.WithCancel(r.ctx)
	l, err := k.Next(fetch, work)
	r.ok(err)
	stop()
	if _, err := k.Next(fetch, work); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if l.Context().Err() != nil {
		t.Fatal("the job in hand ended with the fetching")
	}
	abort()
	<-l.Context().Done()
	r.ok(l.Abandon(r.ctx)) // still heartbeaten, so that it can be given back
	r.ok(r.next(k).Done(r.ctx, record.Totals{}))
}

func TestCloseEndsLeases(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.submit(makeJobs("run", 2), 1, 2, 0)
	k, c := r.worker(quick("a"))
	l := r.next(k)
	c.Close()
	c.Close()
	r.is(context.Cause(l.Context()), conn.ErrClosed)
	_, err := k.Next(r.ctx, r.ctx)
	r.is(err, conn.ErrClosed)
	if c.Err() != nil {
		t.Fatalf("a connection closed on purpose reports %v", c.Err())
	}
	if err := l.Done(r.ctx, record.Totals{}); err == nil {
		t.Fatal("Done over a closed connection succeeded")
	}
}

func TestConnectionLostIsLogged(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.srv.Shutdown()
	r.startServer()
	r.until("both are logged", func() bool {
		return r.log.has("connection to NATS lost") && r.log.has("reconnected to NATS")
	})
}

func TestMonitorMetadata(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	s, err := r.c.js.Stream(r.ctx, jobStream)
	r.ok(err)
	k := r.handle()
	for _, m := range []map[string]string{s.CachedInfo().Config.Metadata, k.CachedInfo().Config.Metadata} {
		if m["io.nats.monitor.enabled"] != "true" {
			t.Fatalf("metadata %v", m)
		}
	}
}

func TestErrorsOfAServerWithoutJetStream(t *testing.T) {
	t.Parallel()
	c := New(conn.Wrap(nil, zerolog.Nop()), nil, conn.Config{})
	for in, want := range map[error]error{
		jetstream.ErrJetStreamNotEnabled: ErrNoJetStream, jetstream.ErrStreamNotFound: ErrNotSetUp,
		nats.ErrReconnectBufExceeded: conn.ErrUnreachable, nats.ErrConnectionClosed: conn.ErrClosed,
	} {
		if err := c.fail("x", in); !errors.Is(err, want) || !errors.Is(err, in) {
			t.Errorf("%v became %v", in, err)
		}
	}
}

// TestStartIsRecordedOnce: the answer to the first try to record it got lost.
func TestStartIsRecordedOnce(t *testing.T) {
	r := newRig(t, record.RunConfig{MaxLost: 2})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	k, _ := r.worker(quick("a"))
	l := r.next(k)
	for range 3 {
		if verdict, err := l.record(r.ctx); err != nil || verdict != "" {
			t.Fatalf("verdict %q, %v", verdict, err)
		}
	}
	r.wantState(js[0], record.StateRunning, 0, 0)
	r.ok(l.Done(r.ctx, record.Totals{}))
}

// afterPublish does something when a message has been published.
type afterPublish struct {
	jetstream.JetStream
	do func()
}

func (p *afterPublish) Publish(
	ctx context.Context, subject string, data []byte, opts ...jetstream.PublishOpt,
) (*jetstream.PubAck, error) {
	a, err := p.JetStream.Publish(ctx, subject, data, opts...)
	p.do()
	return a, err
}

// TestDoneWhileAnotherBuries: a worker that was frozen commits the job between the
// dead letter and the record of the one that has it now.
func TestDoneWhileAnotherBuries(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 400 * time.Millisecond})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	a, _ := r.worker(quick("zombie"))
	b, c := r.worker(quick("b"))
	zombie := r.next(a)
	zombie.halted.Do(func() { close(zombie.halt) }) // frozen: no heartbeats, not settled
	zombie.beats.Wait()
	l := r.next(b)
	c.js = &afterPublish{c.js, func() { r.ok(zombie.Done(r.ctx, record.Totals{Documents: 10})) }}
	r.is(l.Fail(r.ctx, errBoom), ErrSuperseded)
	r.wantState(js[0], record.StateDone, 0, 0)
	if d := r.dead("run"); len(d) != 0 {
		t.Fatalf("a job that is done has a dead letter: %+v", d)
	}
	r.empty()
}
