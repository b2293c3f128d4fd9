package jobs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// Metadata of a run's consumer: settings on which workers must agree.
const (
	metaMaxAttempts = "surprisal.max-attempts"
	metaMaxLost     = "surprisal.max-lost"
	metaPriority    = "surprisal.priority"
)

// durablePrefix is the prefix of the names of runs' consumers.
const durablePrefix = "run-"

func runDurable(run string) string { return durablePrefix + run }

func runConsumer(run string, priority int, t record.RunConfig) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: runDurable(run), Description: "hands a run's jobs to workers, one at a time",
		FilterSubject: jobSubject(run, "*"),
		AckPolicy:     jetstream.AckExplicitPolicy, AckWait: t.AckWait, MaxDeliver: t.MaxDeliver,
		// No BackOff: it would replace AckWait.
		MaxAckPending: t.MaxAckPending,
		// The server rejects requests for more than one job.
		MaxRequestBatch: 1,
		// Each idle worker has one request waiting; the server's default is 512.
		MaxWaiting: 16384,
		Metadata: map[string]string{
			metaFormat: strconv.Itoa(score.FormatVersion), metaMaxAttempts: strconv.Itoa(t.MaxAttempts),
			metaMaxLost: strconv.Itoa(t.MaxLost), metaPriority: strconv.Itoa(priority),
			metaMonitor: "true", metaMonitorAcks: strconv.Itoa(t.MaxAckPending),
		},
	}
}

// RunQueueInfo is one run's part of the queue.
type RunQueueInfo struct {
	Run      string           `json:"run"`
	Config   record.RunConfig `json:"-"`
	Priority int              `json:"priority"`
	Paused   bool             `json:"paused,omitempty"`
	// Pending jobs have not been delivered yet; AckPending ones are in hand, or delayed
	// after a failed attempt.
	Pending     uint64 `json:"pending"`
	AckPending  int    `json:"ack_pending"`
	Redelivered int    `json:"redelivered"` // of these, delivered more than once
	Waiting     int    `json:"waiting"`     // workers that wait for a job of the run

	delivered uint64    // stream sequence of the last delivery
	created   time.Time // when the consumer was created, which identifies it
	drift     error     // why workers must not take jobs of the run
}

// runQueueInfo reads a consumer; ok is false if it does not belong to a run.
func runQueueInfo(info *jetstream.ConsumerInfo) (q RunQueueInfo, ok bool) {
	run, ok := strings.CutPrefix(info.Name, durablePrefix)
	if !ok || !score.ValidRunID(run) {
		return q, false
	}
	have := info.Config
	num := func(key string) int {
		n, err := strconv.Atoi(have.Metadata[key])
		if err != nil {
			return 0 // shows as drift
		}
		return n
	}
	q = RunQueueInfo{
		Run: run, Priority: num(metaPriority), Paused: info.Paused, Pending: info.NumPending,
		AckPending:  info.NumAckPending,
		Redelivered: info.NumRedelivered, Waiting: info.NumWaiting, delivered: info.Delivered.Stream,
		created: info.Created,
		Config: record.RunConfig{
			AckWait: have.AckWait, MaxAttempts: num(metaMaxAttempts), MaxLost: num(metaMaxLost),
			MaxDeliver: have.MaxDeliver, MaxAckPending: have.MaxAckPending,
		},
	}
	want := runConsumer(run, q.Priority, q.Config)
	var d diff
	d.eq("ack policy", have.AckPolicy, want.AckPolicy)
	d.eq("BackOff steps", len(have.BackOff), 0)
	d.eq("filter", have.FilterSubject, want.FilterSubject)
	d.eq("MaxRequestBatch", have.MaxRequestBatch, want.MaxRequestBatch)
	d.eq("MaxWaiting", have.MaxWaiting, want.MaxWaiting)
	d.meta(have.Metadata, want.Metadata)
	if err := q.Config.Validate(); err != nil {
		d = append(d, err.Error())
	}
	q.drift = d.err("consumer " + info.Name + " of stream " + jobStream)
	return q, true
}

// OpenRun creates the run's consumer, so that workers take its jobs, or checks that an
// existing one has the settings asked for; it changes only the priority, because
// workers depend on the rest. Settings that asked leaves open stay as they are or, if
// there is no consumer yet, are those of the run's record, kept. Call it before Submit.
func (c *Client) OpenRun(ctx context.Context, run string, priority int, asked, kept record.RunConfig) error {
	op := "open run " + run
	if !score.ValidRunID(run) {
		return fmt.Errorf("open run: %q is not a run ID", run)
	}
	var k jetstream.Consumer
	err := read(ctx, func(ctx context.Context) (err error) {
		if k, err = c.js.Consumer(ctx, jobStream, runDurable(run)); !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return err
		}
		want := asked.Or(kept).WithDefaults()
		if err := want.Validate(); err != nil {
			return err
		}
		// Create, never CreateOrUpdate: that would rewrite one made since.
		k, err = c.js.CreateConsumer(ctx, jobStream, runConsumer(run, priority, want))
		if errors.Is(err, jetstream.ErrConsumerExists) {
			k, err = c.js.Consumer(ctx, jobStream, runDurable(run))
		}
		return err
	})
	if isOverlap(err) {
		err = c.overlapping(ctx, run, err)
	}
	if err != nil {
		return c.fail(op, err)
	}
	have, ok := runQueueInfo(k.CachedInfo())
	if !ok || have.drift != nil {
		return fmt.Errorf("%s: %w", op, have.drift)
	}
	want := asked.Or(have.Config)
	var d diff
	d.eq("AckWait", have.Config.AckWait, want.AckWait)
	d.eq("MaxDeliver", have.Config.MaxDeliver, want.MaxDeliver)
	d.eq("MaxAckPending", have.Config.MaxAckPending, want.MaxAckPending)
	d.eq("max attempts", have.Config.MaxAttempts, want.MaxAttempts)
	d.eq("max lost", have.Config.MaxLost, want.MaxLost)
	if err := d.err("run " + run); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if have.Priority != priority {
		next := k.CachedInfo().Config
		next.Metadata[metaPriority] = strconv.Itoa(priority)
		err := read(ctx, func(ctx context.Context) error {
			_, err := c.js.UpdateConsumer(ctx, jobStream, next)
			return err
		})
		if err != nil {
			return c.fail(op, err)
		}
	}
	return c.fail(op, c.announce(run, noticeChanged))
}

// CloseRun deletes a run's consumer and its jobs from the queue, including those in hand,
// which workers finish and whose acks have no effect. Records and dead letters stay.
// Closing a closed run is not an error.
func (c *Client) CloseRun(ctx context.Context, run string) error {
	if err := c.PurgeRun(ctx, run); err != nil {
		return err
	}
	err := read(ctx, func(ctx context.Context) error { return c.js.DeleteConsumer(ctx, jobStream, runDurable(run)) })
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return c.fail("close run "+run, err)
	}
	return c.fail("close run "+run, c.announce(run, noticeChanged))
}

// farFuture is until when the consumer of a paused run is paused.
var farFuture = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// PauseRun makes the server deliver no more of the run's jobs until ResumeRun, even if
// servers and workers restart. Jobs in hand are not affected.
func (c *Client) PauseRun(ctx context.Context, run string) error {
	return c.setPause(ctx, "pause", run, farFuture)
}

// ResumeRun undoes PauseRun.
func (c *Client) ResumeRun(ctx context.Context, run string) error {
	return c.setPause(ctx, "resume", run, time.Time{})
}

func (c *Client) setPause(ctx context.Context, op, run string, until time.Time) error {
	op += " run " + run
	if !score.ValidRunID(run) {
		return fmt.Errorf("%s: not a run id", op)
	}
	err := read(ctx, func(ctx context.Context) error {
		_, err := c.js.PauseConsumer(ctx, jobStream, runDurable(run), until)
		return err
	})
	if err != nil {
		return c.fail(op, err)
	}
	return c.fail(op, c.announce(run, noticeChanged))
}

// runQueues lists the runs that have a consumer.
func (c *Client) runQueues(ctx context.Context) ([]RunQueueInfo, error) {
	var runs []RunQueueInfo
	err := read(ctx, func(ctx context.Context) error {
		runs = nil
		s, err := c.js.Stream(ctx, jobStream)
		if err != nil {
			return err
		}
		list := s.ListConsumers(ctx)
		for info := range list.Info() {
			if q, ok := runQueueInfo(info); ok {
				runs = append(runs, q)
			}
		}
		return list.Err()
	})
	return runs, err
}

// RunQueue is the run's part of the queue; ErrNoRun if it has none: it was never queued,
// or has ended.
func (c *Client) RunQueue(ctx context.Context, run string) (RunQueueInfo, error) {
	if !score.ValidRunID(run) {
		return RunQueueInfo{}, fmt.Errorf("%w: %q is not a run ID", ErrNoRun, record.Clean(run, 80))
	}
	var q RunQueueInfo
	err := read(ctx, func(ctx context.Context) error {
		k, err := c.js.Consumer(ctx, jobStream, runDurable(run))
		if err == nil {
			q, _ = runQueueInfo(k.CachedInfo())
		}
		return err
	})
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return q, fmt.Errorf("%w in the queue: %s", ErrNoRun, run)
	}
	return q, c.fail("look at the queue of run "+run, err)
}

// Holds reports whether the queue has any message of the run, in any state.
func (c *Client) Holds(ctx context.Context, run string) (bool, error) {
	if !score.ValidRunID(run) {
		return false, fmt.Errorf("look for run: %q is not a run ID", run)
	}
	var held bool
	err := read(ctx, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, jobStream)
		if err != nil {
			return err
		}
		_, err = s.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(jobSubject(run, "*")))
		held = err == nil
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		return err
	})
	return held, c.fail("look for jobs of run "+run, err)
}
