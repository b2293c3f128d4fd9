package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/rs/zerolog"

	"surprisal/internal/failpoint"
	"surprisal/internal/score"
)

// ConsumerConfig is a worker's side of the queue.
type ConsumerConfig struct {
	Worker     string        // id, as in WorkerRecord
	Engine     string        // for the job's record
	Device     string        // for the job's record
	StallAfter time.Duration // 10 min; a lease without Progress for so long is given up
	Heartbeat  time.Duration // AckWait/3; at most that
	FetchWait  time.Duration // 15 s; how long one request for a job waits
	IdleAfter  time.Duration // 1 min; idle this long with jobs pending is a stall of the queue
	RetryDelay time.Duration // 2 s; after the first failed attempt, doubled after each
	RetryMax   time.Duration // 2 min; at most so long between attempts
	BackDelay  time.Duration // 1 s; until another worker gets a job that was given back
	SettleTime time.Duration // 30 s; how long settling is tried where its context allows more
	Log        zerolog.Logger
}

func (c ConsumerConfig) withDefaults(ackWait time.Duration) ConsumerConfig {
	set := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	set(&c.StallAfter, 10*time.Minute)
	set(&c.Heartbeat, ackWait/3)
	set(&c.FetchWait, 15*time.Second)
	set(&c.IdleAfter, time.Minute)
	set(&c.RetryDelay, 2*time.Second)
	set(&c.RetryMax, 2*time.Minute)
	set(&c.BackDelay, time.Second)
	set(&c.SettleTime, 30*time.Second)
	return c
}

func (c ConsumerConfig) validate(ackWait time.Duration) error {
	switch {
	case !validToken(c.Worker):
		return fmt.Errorf("worker id %q: want 1 to 64 of a-z, A-Z, 0-9, - and _", c.Worker)
	case c.Heartbeat <= 0 || ackWait <= 2*c.Heartbeat:
		return fmt.Errorf("heartbeat %s: want more than 0 and less than half of AckWait %s", c.Heartbeat, ackWait)
	case c.StallAfter <= c.Heartbeat:
		return fmt.Errorf("stall after %s: want more than the heartbeat %s", c.StallAfter, c.Heartbeat)
	case c.FetchWait < 100*time.Millisecond:
		return fmt.Errorf("fetch wait %s: want 100ms or more", c.FetchWait)
	case c.RetryDelay < 10*time.Millisecond || c.RetryMax < c.RetryDelay:
		return fmt.Errorf("retry delay %s to %s: want 10ms or more, rising", c.RetryDelay, c.RetryMax)
	case c.BackDelay < 10*time.Millisecond:
		return fmt.Errorf("back delay %s: want 10ms or more", c.BackDelay)
	case c.IdleAfter <= 0 || c.SettleTime <= 0:
		return fmt.Errorf("idle after %s, settle time %s: want more than 0", c.IdleAfter, c.SettleTime)
	}
	return nil
}

// Consumer takes jobs. Its methods may be called from any goroutine.
type Consumer struct {
	c   *Client
	cfg ConsumerConfig
	top Topology
	log zerolog.Logger
	// fetch takes one message: (*Consumer).fetchOne, but for tests of the watchdog.
	fetch func(ctx context.Context) (jetstream.Msg, error)

	mu     sync.Mutex
	handle jetstream.Consumer
}

// NewConsumer checks the queue and makes a consumer of its jobs. With Config.Wait
// it waits for a dispatcher to set the queue up.
func (c *Client) NewConsumer(ctx context.Context, cfg ConsumerConfig) (*Consumer, error) {
	var top Topology
	for said := false; ; {
		var err error
		if top, err = c.Check(ctx); err == nil {
			break
		}
		waitable := errors.Is(err, ErrNotSetUp) || errors.Is(err, ErrUnreachable)
		if !c.cfg.Wait || !waitable || ctx.Err() != nil || c.Err() != nil {
			return nil, err
		}
		if !said {
			said = true
			cfg.Log.Info().Err(err).Msg("waiting for a dispatcher to set the queue up")
		}
		sleep(ctx, jitter(time.Second))
	}
	cfg = cfg.withDefaults(top.AckWait)
	if err := cfg.validate(top.AckWait); err != nil {
		return nil, fmt.Errorf("make a consumer: %w", err)
	}
	k := &Consumer{c: c, cfg: cfg, top: top, log: cfg.Log}
	k.fetch = k.fetchOne
	if err := k.renew(ctx); err != nil {
		return nil, c.fail("make a consumer", err)
	}
	return k, nil
}

// renew looks the consumer up again.
func (k *Consumer) renew(ctx context.Context) error {
	h, err := k.c.js.Consumer(perRequest{ctx}, JobStream, WorkDurable)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.handle = h
	return nil
}

// fetchOne asks for one message. Consume and Messages would prefetch up to 500,
// and a worker would sit on jobs that others could do. A job sent just as ctx ends
// reaches nobody: it comes again after AckWait, and has no record that counts it.
func (k *Consumer) fetchOne(ctx context.Context) (jetstream.Msg, error) {
	if !k.c.Connected() {
		return nil, ErrUnreachable // a request now would leave nats.go a subscription behind
	}
	k.mu.Lock()
	h := k.handle
	k.mu.Unlock()
	// nats.go derives the request's expiry from the deadline, which must be ours:
	// a caller's may be too near for the heartbeats.
	ctx, cancel := context.WithTimeout(perRequest{ctx}, k.cfg.FetchWait)
	defer cancel()
	return h.Next(jetstream.FetchContext(ctx), jetstream.FetchHeartbeat(min(k.cfg.FetchWait/4, 5*time.Second)))
}

// Next waits for a job. When fetch ends it returns fetch's error and takes no
// more; work is the parent of the lease's context, so that a job in hand
// outlives fetch. Besides, only ErrAuth and ErrClosed end it: all else, a server
// that is away included, it waits out and logs.
//
// A worker that reads the next job ahead calls Next while it holds a lease; then
// it bumps Progress of the waiting lease too whenever the one in hand moves.
func (k *Consumer) Next(fetch, work context.Context) (*Lease, error) {
	dog := watchdog{k: k, since: time.Now()}
	wait := 100 * time.Millisecond
	for {
		if err := fetch.Err(); err != nil {
			return nil, err
		}
		select {
		case <-k.c.closed:
			if err := k.c.Err(); err != nil {
				return nil, err
			}
			return nil, ErrClosed
		default:
		}
		msg, err := k.fetch(fetch)
		if err == nil {
			lease, err := k.begin(work, msg)
			if err == nil && lease != nil {
				return lease, nil
			}
			dog = watchdog{k: k, since: time.Now()}
			if err == nil { // the message needed no worker
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
			sleep(fetch, jitter(wait))
			wait = min(2*wait, 5*time.Second)
		} else {
			wait = 100 * time.Millisecond
		}
		dog.look(fetch)
	}
}

// isEmpty reports whether a fetch ended because there was nothing to fetch.
func isEmpty(err error) bool {
	return errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, jetstream.ErrNoMessages)
}

// begin makes a lease of a delivery: heartbeat first, then the record. It returns
// nil where there is nothing to do: the message was no job, or is dead.
func (k *Consumer) begin(work context.Context, msg jetstream.Msg) (*Lease, error) {
	if err := failpoint.Hit(failpoint.AfterFetch); err != nil {
		return nil, fmt.Errorf("take job: %w", err)
	}
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("take job: %w", err)
	}
	l := &Lease{k: k, msg: msg, id: nuid.Next(), received: time.Now()}
	run, id := splitSubject(msg.Subject())
	l.state = JobState{
		Run: run, Job: id, State: StateRunning, Seq: meta.Sequence.Stream, Delivery: meta.NumDelivered,
		Queued: meta.Timestamp.UTC(), Lease: l.id, Worker: k.cfg.Worker, Engine: k.cfg.Engine, Device: k.cfg.Device,
		Started: time.Now().UTC(),
	}
	l.log = k.log.With().Str("run", clean(run, 64)).Str("job", clean(id, 64)).Uint64("delivery", meta.NumDelivered).Logger()
	if !l.start(work) {
		return nil, ErrClosed
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), k.cfg.SettleTime)
	defer cancel()

	job, err := score.DecodeJob(msg.Data())
	if err == nil && (job.Run != run || job.ID != id) {
		err = fmt.Errorf("%w: it is job %s of run %s", score.ErrBadJob, job.ID, job.Run)
	}
	if err != nil {
		return nil, l.die(ctx, err.Error())
	}
	l.Job = job
	verdict, err := l.record(ctx)
	switch {
	case errors.Is(err, ErrSuperseded):
		l.stop()
		return nil, nil
	case err != nil:
		l.stop()
		return nil, errors.Join(err, l.nak(ctx, k.cfg.BackDelay))
	case verdict != "":
		return nil, l.die(ctx, verdict)
	}
	return l, nil
}

// splitSubject takes run and job from a subject of the job stream, which has
// four tokens.
func splitSubject(subject string) (run, job string) {
	t := strings.Split(subject, ".")
	if len(t) != 4 {
		return "", ""
	}
	return t[2], t[3]
}
