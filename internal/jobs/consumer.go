package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/rs/zerolog"

	"surprisal/internal/failpoint"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// ConsumerConfig is a worker's side of the queue.
type ConsumerConfig struct {
	Worker     string        // id, as in WorkerRecord
	Engine     string        // for the job's record
	Device     string        // for the job's record
	StallAfter time.Duration // 10 min; a lease without Progress for this long is given up
	Heartbeat  time.Duration // a third of the run's AckWait; at most that
	FetchWait  time.Duration // 1 s; how long one request for a job waits, and a new run for its turn
	IdleAfter  time.Duration // 1 min; idle for this long with jobs pending is a stall of the queue
	RetryDelay time.Duration // 2 s; after the first failed attempt, doubled after each
	RetryMax   time.Duration // 2 min; the longest delay between attempts
	BackDelay  time.Duration // 1 s; until another worker gets a job that was given back
	SettleTime time.Duration // 30 s; how long settling is retried if its context allows more
	Meter      Meter         // counts deliveries; optional
	Log        zerolog.Logger
}

// Meter counts deliveries, and jobs settled without a commit.
type Meter interface {
	// Delivered is called for each job received, with whether it had been delivered
	// before.
	Delivered(before bool)
	// Settled is called with the state that a job was left in: failed, waiting or dead.
	Settled(state string)
}

// noMeter counts nothing.
type noMeter struct{}

// Delivered does nothing.
func (noMeter) Delivered(bool) {}

// Settled does nothing.
func (noMeter) Settled(string) {}

func (c ConsumerConfig) withDefaults() ConsumerConfig {
	set := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	set(&c.StallAfter, 10*time.Minute)
	set(&c.FetchWait, time.Second)
	set(&c.IdleAfter, time.Minute)
	set(&c.RetryDelay, 2*time.Second)
	set(&c.RetryMax, 2*time.Minute)
	set(&c.BackDelay, time.Second)
	set(&c.SettleTime, 30*time.Second)
	if c.Meter == nil {
		c.Meter = noMeter{}
	}
	return c
}

func (c ConsumerConfig) validate() error {
	switch {
	case !record.ValidToken(c.Worker):
		return fmt.Errorf("worker ID %q: must be 1 to 64 of a-z, A-Z, 0-9, - and _", c.Worker)
	case c.Heartbeat < 0 || c.StallAfter <= 0:
		return fmt.Errorf("heartbeat %s, stall after %s: must be positive", c.Heartbeat, c.StallAfter)
	case c.FetchWait < 100*time.Millisecond:
		return fmt.Errorf("fetch wait %s: must be at least 100ms", c.FetchWait)
	case c.RetryDelay < 10*time.Millisecond || c.RetryMax < c.RetryDelay:
		return fmt.Errorf("retry delay %s to %s: must be at least 10ms and not fall", c.RetryDelay, c.RetryMax)
	case c.BackDelay < 10*time.Millisecond:
		return fmt.Errorf("back delay %s: must be at least 10ms", c.BackDelay)
	case c.IdleAfter <= 0 || c.SettleTime <= 0:
		return fmt.Errorf("idle after %s, settle time %s: must be positive", c.IdleAfter, c.SettleTime)
	}
	return nil
}

// beat is the interval of a lease's heartbeat and check for progress. Two heartbeats
// in a row may get lost.
func (c ConsumerConfig) beat(ackWait time.Duration) time.Duration {
	every := min(ackWait/3, c.StallAfter/2)
	if c.Heartbeat > 0 {
		every = min(every, c.Heartbeat)
	}
	return every
}

// Consumer takes jobs of all runs. Its methods may be called from any goroutine.
type Consumer struct {
	c      *Client
	cfg    ConsumerConfig
	log    zerolog.Logger
	roster *roster
	// fetch takes one job of a run: (*Consumer).pull, except in tests of the watchdog.
	fetch func(ctx context.Context, run string, wait time.Duration) (jetstream.Msg, error)

	mu     sync.Mutex
	leases map[*Lease]struct{} // in hand
}

// NewConsumer checks the queue and makes a consumer. With conn.Config.Wait it waits for
// a dispatcher to set the queue up. The consumer keeps its roster of runs current until
// the client is closed.
func (c *Client) NewConsumer(ctx context.Context, cfg ConsumerConfig) (*Consumer, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("create a consumer: %w", err)
	}
	k := &Consumer{c: c, cfg: cfg, log: cfg.Log, roster: newRoster(c, cfg.Log), leases: map[*Lease]struct{}{}}
	k.fetch = k.pull
	unhear, err := c.onNotice(k.roster.hear) // first, so that nothing is missed
	if err != nil {
		return nil, c.fail("create a consumer", err)
	}
	for said := false; ; {
		_, err := c.Check(ctx)
		if err == nil {
			err = k.roster.refresh(ctx)
		}
		if err == nil {
			break
		}
		waitable := errors.Is(err, ErrNotSetUp) || errors.Is(err, conn.ErrUnreachable) || isBroken(err)
		if !c.wait || !waitable || ctx.Err() != nil || c.Err() != nil {
			unhear()
			return nil, err
		}
		if !said {
			said = true
			cfg.Log.Info().Err(err).Msg("waiting for a dispatcher to set the queue up")
		}
		conn.Sleep(ctx, conn.Jitter(time.Second))
	}
	if !c.spawn(func() {
		defer unhear()
		k.follow()
	}) {
		return nil, conn.ErrClosed
	}
	return k, nil
}

// follow keeps the roster current until the client is closed.
func (k *Consumer) follow() {
	ctx, cancel := k.c.untilClose(context.Background())
	defer cancel()
	reconnects := k.c.nc.Stats().Reconnects
	next := time.Now().Add(conn.Jitter(lookEvery))
	tick := time.NewTimer(conn.Jitter(time.Second)) // to notice a reconnect
	defer tick.Stop()
	for {
		tick.Reset(conn.Jitter(time.Second))
		select {
		case <-ctx.Done():
			return
		case <-k.roster.dirty:
		case <-tick.C:
			if n := k.c.nc.Stats().Reconnects; n == reconnects && time.Now().Before(next) {
				continue
			} else if !k.c.Connected() {
				continue
			} else {
				reconnects = n
			}
		}
		err := k.roster.refresh(ctx)
		if err == nil {
			err = k.dropCancelled(ctx)
		}
		next = time.Now().Add(conn.Jitter(lookEvery))
		if err != nil && ctx.Err() == nil {
			k.log.Debug().Err(err).Msg("runs not read; retrying")
			next = time.Now().Add(time.Second)
		}
	}
}

// dropCancelled ends the leases of runs that were cancelled with Drop.
func (k *Consumer) dropCancelled(ctx context.Context) error {
	byRun := map[string][]*Lease{}
	k.mu.Lock()
	for l := range k.leases {
		if _, live := k.roster.queue(l.origin.Run); !live {
			byRun[l.origin.Run] = append(byRun[l.origin.Run], l)
		}
	}
	k.mu.Unlock()
	for _, run := range slices.Sorted(maps.Keys(byRun)) {
		leases := byRun[run]
		r, err := k.c.Run(ctx, run)
		switch {
		case errors.Is(err, ErrNoRun), errors.Is(err, ErrNotSetUp), errors.Is(err, record.ErrBad):
			continue // the store was lost: the jobs in hand may still be wanted
		case err != nil:
			return err
		case r.State != record.RunCancelled || !r.Drop:
			continue
		}
		for _, l := range leases {
			l.log.Warn().Msg("run cancelled; dropping the job in hand")
			l.cancel(ErrCancelled)
		}
	}
	return nil
}

// Next waits for a job. Runs with a higher priority come first; runs of the same
// priority take turns. When fetch ends, Next returns fetch's error; work is the parent
// of the lease's context, so that a job in hand outlives fetch. Otherwise only
// conn.ErrAuth and conn.ErrClosed end it: it logs and waits out everything else, such
// as an unreachable server.
//
// A worker that reads the next job ahead calls Next while it has a lease. It must then
// call Progress of both leases whenever the first advances.
func (k *Consumer) Next(fetch, work context.Context) (*Lease, error) {
	dog := watchdog{k: k, since: time.Now()}
	turn := turn{k: k}
	wait := 100 * time.Millisecond
	for {
		if err := fetch.Err(); err != nil {
			return nil, err
		}
		select {
		case <-k.c.Closed():
			if err := k.c.Err(); err != nil {
				return nil, err
			}
			return nil, conn.ErrClosed
		default:
		}
		msg, err := turn.take(fetch)
		if err == nil {
			lease, err := k.begin(work, msg, turn.asked)
			if err == nil && lease != nil {
				return lease, nil
			}
			dog = watchdog{k: k, since: time.Now()}
			turn.swept = time.Time{}
			if err == nil { // there was nothing to do
				continue
			}
			k.log.Warn().Err(err).Msg("job not taken")
		}
		if fetch.Err() != nil {
			continue
		}
		if err == nil || !isEmpty(err) {
			if err != nil {
				k.log.Debug().Err(err).Msg("no job fetched")
			}
			conn.Sleep(fetch, conn.Jitter(wait))
			wait = min(2*wait, 5*time.Second)
		} else {
			wait = 100 * time.Millisecond
		}
		dog.look(fetch)
	}
}

// turn is one call of Next.
type turn struct {
	k     *Consumer
	swept time.Time // when all runs were last asked
	asked time.Time // when the last request for a job was sent
	heard <-chan struct{}
}

// take asks the runs for one job, in their order; if none has one, it waits for a job
// of one run for FetchWait. There is only one request at any time, so that a worker
// never gets more jobs than it asked for.
func (t *turn) take(ctx context.Context) (jetstream.Msg, error) {
	k, now := t.k, time.Now()
	runs, changed, soon := k.roster.order(now)
	news := t.heard != changed
	if news || now.Sub(t.swept) >= k.roster.sweepEvery(len(runs)) {
		t.heard, t.swept = changed, now
		for _, run := range runs {
			msg, err := t.ask(ctx, run, 0)
			if err == nil || !isEmpty(err) {
				return msg, err
			}
		}
	}
	if len(runs) > 0 {
		return t.ask(ctx, k.roster.park(runs), k.cfg.FetchWait)
	}
	limit := time.Now().Add(k.cfg.FetchWait)
	if !soon.IsZero() && soon.Before(limit) {
		limit = soon
	}
	timer := time.NewTimer(time.Until(limit))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-k.c.Closed():
	case <-timer.C:
	}
	return nil, jetstream.ErrNoMessages
}

func (t *turn) ask(ctx context.Context, run string, wait time.Duration) (jetstream.Msg, error) {
	r := t.k.roster
	t.asked = time.Now()
	msg, err := t.k.fetch(ctx, run, wait)
	switch {
	case err == nil:
		r.took(run)
	case errors.Is(err, errGone):
		r.leave(run, 500*time.Millisecond)
		r.look()
		err = jetstream.ErrNoMessages
	case isEmpty(err):
		r.none(run)
	}
	return msg, err
}

// isEmpty reports whether a fetch ended because there was no job.
func isEmpty(err error) bool {
	return errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, jetstream.ErrNoMessages)
}

// begin makes a lease of a delivery: it starts heartbeats, then records the lease. It
// returns nil if there is nothing to do: the message is not a job, the job is dead, or
// another worker has it by now. The job was requested at asked: the process may have
// been frozen since.
func (k *Consumer) begin(work context.Context, msg jetstream.Msg, asked time.Time) (*Lease, error) {
	if err := failpoint.Hit(failpoint.AfterFetch); err != nil {
		return nil, fmt.Errorf("take job: %w", err)
	}
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("take job: %w", err)
	}
	k.cfg.Meter.Delivered(meta.NumDelivered > 1)
	l := &Lease{k: k, msg: msg, id: nuid.Next(), asked: asked, received: time.Now()}
	run, id := splitSubject(msg.Subject())
	queue, ok := k.roster.queue(run)
	if !ok {
		// Its run has just ended.
		k.log.Warn().Str("run", record.Clean(run, 64)).Str("job", record.Clean(id, 64)).Dur("held", time.Since(asked)).
			Msg("run ended before this worker received the job; giving the job back")
		return nil, msg.NakWithDelay(k.cfg.BackDelay)
	}
	l.run, l.made, l.reconnects = queue.Config, queue.created, k.c.nc.Stats().Reconnects
	l.state = record.Job{
		Run: run, Job: id, State: record.StateRunning, Seq: meta.Sequence.Stream, Delivery: meta.NumDelivered,
		Queued: meta.Timestamp.UTC(), Lease: l.id, Worker: k.cfg.Worker, Engine: k.cfg.Engine, Device: k.cfg.Device,
		Started: time.Now().UTC(),
	}
	l.log = k.log.With().Str("run", record.Clean(run, 64)).Str("job", record.Clean(id, 64)).
		Uint64("delivery", meta.NumDelivered).Logger()
	job, jobErr := score.DecodeJob(msg.Data())
	if jobErr == nil && (job.Run != run || job.ID != id) {
		jobErr = fmt.Errorf("%w: it is job %s of run %s", score.ErrBadJob, job.ID, job.Run)
	}
	if jobErr == nil {
		l.Job = job
		l.log = l.log.With().Str("file", job.Input.Rel).Int64("first", job.First).Int64("last", job.Last).Logger()
	}
	l.origin = l.state
	if !l.start(work) {
		return nil, conn.ErrClosed
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), k.cfg.SettleTime)
	defer cancel()

	if jobErr != nil {
		return nil, l.die(ctx, jobErr.Error())
	}
	verdict, err := l.record(ctx)
	switch {
	case errors.Is(err, ErrSuperseded):
		l.log.Warn().Dur("held", time.Since(asked)).
			Msg("worker was frozen or disconnected before it received the job, which was delivered again; giving it up")
		l.stop()
		return nil, nil
	case err != nil:
		l.stop()
		return nil, errors.Join(err, l.nak(ctx, k.cfg.BackDelay))
	case verdict != "":
		return nil, l.die(ctx, verdict)
	}
	l.recorded.Store(true)
	return l, nil
}

// InHand is the number of leases, the age of the oldest heartbeat among them and the
// shortest AckWait; zeros without leases.
func (k *Consumer) InHand() (n int, heartbeat, ackWait time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for l := range k.leases {
		heartbeat = max(heartbeat, time.Since(l.received)-time.Duration(l.beaten.Load()))
		if ackWait == 0 || l.run.AckWait < ackWait {
			ackWait = l.run.AckWait
		}
	}
	return len(k.leases), heartbeat, ackWait
}

// splitSubject takes run and job from a subject of the job stream, which has four
// tokens.
func splitSubject(subject string) (run, job string) {
	t := strings.Split(subject, ".")
	if len(t) != 4 {
		return "", ""
	}
	return t[2], t[3]
}
