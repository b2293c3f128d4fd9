package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/failpoint"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
)

// settle calls how once, while heartbeats continue; how stops them before it acks.
func (l *Lease) settle(ctx context.Context, op string, how func(context.Context) error) error {
	if !l.settled.CompareAndSwap(false, true) {
		return fmt.Errorf("%s job %s: %w", op, l.Job.ID, ErrSettled)
	}
	defer l.stop()
	ctx, cancel := context.WithTimeout(ctx, l.k.cfg.SettleTime)
	defer cancel()
	if err := how(ctx); err != nil {
		return l.k.c.fail(op+" job "+l.Job.ID, err)
	}
	return nil
}

// Done: the output is committed. It records the totals, then acks. The job is done even
// if another worker has it by now, because the output is the same. ErrNotAcked is
// harmless.
func (l *Lease) Done(ctx context.Context, t record.Totals) error {
	l.k.roster.accepted(l.state.Run)
	return l.settle(ctx, "finish", func(ctx context.Context) error {
		if err := failpoint.Hit(failpoint.BeforeRecord); err != nil {
			return err
		}
		letter := false
		recErr := l.update(ctx, func(cur record.Job, exists bool) (record.Job, error) {
			letter = exists && (cur.Letter || cur.State == record.StateDead)
			if exists && cur.Lease != l.id && cur.SameMessage(l.state) {
				l.log.Warn().Str("holder", cur.Worker).Str("state", string(cur.State)).
					Msg("the job has been delivered again; its output is the same, so it is done")
			}
			if exists && cur.State == record.StateDone && cur.SameMessage(l.state) && cur.Lease != l.id {
				return cur, errKeep
			}
			next := l.state
			next.State, next.Totals, next.Error, next.Letter = record.StateDone, &t, "", false
			if exists {
				next.History = cur.History // longer than ours if the job was delivered again
			}
			next.History = record.Ended(next.History, next.Worker, next.Started, record.OutcomeDone, "")
			return next, nil
		})
		if letter {
			if err := l.k.c.dropLetter(ctx, l.state.Run, l.state.Job); err != nil {
				l.log.Warn().Err(err).Msg("dead letter of a completed job not deleted")
			}
		}
		if err := failpoint.Hit(failpoint.BeforeAck); err != nil {
			return err
		}
		l.stop()
		var nobody time.Time // since when a reachable server has no responder for the ack
		ackErr := again(ctx, func(ctx context.Context) error {
			if l.orphaned(ctx) {
				return permanent(errOrphaned)
			}
			ctx, cancel := context.WithTimeout(ctx, requestTimeout)
			defer cancel()
			err := l.msg.DoubleAck(ctx)
			switch {
			case errors.Is(err, jetstream.ErrMsgAlreadyAckd):
				return nil
			case !errors.Is(err, nats.ErrNoResponders):
				nobody = time.Time{}
			case nobody.IsZero():
				nobody = time.Now()
			case time.Since(nobody) > requestTimeout:
				return permanent(err) // the stream is gone, and the message with it
			}
			return err
		})
		if err := failpoint.Hit(failpoint.AfterAck); err != nil {
			return err
		}
		if ackErr != nil {
			ackErr = fmt.Errorf("%w: %w", ErrNotAcked, ackErr)
		}
		if recErr != nil {
			recErr = fmt.Errorf("record it: %w", recErr)
		}
		return errors.Join(recErr, ackErr)
	})
}

// Retry: the attempt failed, and another one may succeed. If no attempts are left, the job
// is dead. ErrSuperseded: the job has been delivered again, and that delivery decides.
func (l *Lease) Retry(ctx context.Context, cause error) error {
	return l.settle(ctx, "retry", func(ctx context.Context) error {
		if l.state.Failed+1 >= l.run.MaxAttempts {
			l.state.Failed++
			l.state.History = record.Ended(l.state.History, l.state.Worker, l.state.Started, record.OutcomeDead,
				cause.Error())
			return l.die(ctx, fmt.Sprintf("attempt %d of %d failed: %v", l.state.Failed, l.run.MaxAttempts, cause))
		}
		err := l.giveBack(ctx, record.StateFailed, func(s *record.Job) {
			s.Failed, s.Error = s.Failed+1, cause.Error()
			s.History = record.Ended(s.History, s.Worker, s.Started, failure(cause), s.Error)
		})
		if err != nil {
			return err
		}
		l.k.cfg.Meter.Settled(string(record.StateFailed))
		delay := backoff(l.k.cfg.RetryDelay, l.k.cfg.RetryMax, l.state.Failed-1)
		l.log.Warn().Err(cause).Int("attempt", l.Attempt).Dur("delay", delay).Msg("attempt failed; job will be retried")
		return l.nak(ctx, delay)
	})
}

// Fail: no attempt can succeed. The job is dead.
func (l *Lease) Fail(ctx context.Context, cause error) error {
	return l.settle(ctx, "fail", func(ctx context.Context) error {
		l.state.Failed++
		l.state.History = record.Ended(l.state.History, l.state.Worker, l.state.Started, record.OutcomeDead,
			cause.Error())
		return l.die(ctx, cause.Error())
	})
}

// Abandon gives the job back at once, on drain. It does not count as an attempt.
func (l *Lease) Abandon(ctx context.Context) error {
	return l.settle(ctx, "give back", func(ctx context.Context) error {
		if err := l.giveBack(ctx, record.StateWaiting, func(*record.Job) {}); err != nil {
			return err
		}
		l.k.cfg.Meter.Settled(string(record.StateWaiting))
		return l.nak(ctx, conn.Jitter(l.k.cfg.BackDelay))
	})
}

// Decline gives back a job that this worker cannot do, with a delay. It does not count as
// an attempt. The delay grows with the deliveries up to five minutes, so that a job that
// no worker can do reaches MaxDeliver only after days.
func (l *Lease) Decline(ctx context.Context, reason string) error {
	l.k.roster.declined(l.state.Run)
	return l.settle(ctx, "decline", func(ctx context.Context) error {
		if err := l.giveBack(ctx, record.StateWaiting, func(s *record.Job) {
			s.Error = "declined: " +
				"" + reason
		}); err != nil {
			return err
		}
		l.k.cfg.Meter.Settled(string(record.StateWaiting))
		delay := backoff(l.k.cfg.BackDelay, 5*time.Minute, int(min(l.state.Delivery-1, 30)))
		l.log.Info().Str("reason", reason).Dur("delay", delay).Msg("job declined")
		return l.nak(ctx, delay)
	})
}

// giveBack records that the job waits for another delivery, if this lease is still the
// recorded one: a Nak of an old delivery would take the job from the worker that has it
// now.
func (l *Lease) giveBack(ctx context.Context, state record.State, change func(*record.Job)) error {
	err := l.update(ctx, func(cur record.Job, exists bool) (record.Job, error) {
		if exists && cur.Lease != l.id {
			return cur, ErrSuperseded
		}
		next := l.state
		next.State = state
		change(&next)
		return next, nil
	})
	l.stop()
	return err
}

// die writes the dead letter, then the record, then terminates the message: where
// it is cut short, the next delivery continues from there.
func (l *Lease) die(ctx context.Context, reason string) error {
	defer l.stop()
	l.log.Error().Str("reason", record.Clean(reason, record.MaxError)).Msg("job is dead")
	if l.Job.ID != "" {
		// Only the lease on record may end the job.
		err := l.update(ctx, func(cur record.Job, exists bool) (record.Job, error) {
			if exists && cur.Lease != l.id {
				return cur, ErrSuperseded
			}
			return cur, errKeep
		})
		if err != nil {
			return err
		}
	}
	letter := l.letter(reason)
	at, err := l.writeLetter(ctx, letter)
	if err != nil {
		return err
	}
	if l.state.Recordable() {
		if err := l.recordDeath(ctx, reason, at); err != nil {
			return err
		}
		// An earlier holder may have written its own letter over ours and withdrawn it
		// before the record said that the job is dead.
		if at, err = l.writeLetter(ctx, letter); err != nil {
			return err
		}
		if err := l.withdrawIfDone(ctx, at); err != nil {
			return err
		}
	}
	l.k.cfg.Meter.Settled(string(record.StateDead))
	l.stop()
	if l.orphaned(ctx) {
		return nil
	}
	return l.k.c.sure(ctx, func() error { return l.msg.TermWithReason(record.Clean(reason, 256)) })
}

// letter is the job's dead letter.
func (l *Lease) letter(reason string) record.DeadLetter {
	d := record.DeadLetter{
		Run: l.state.Run, ID: l.state.Job, Reason: reason, Attempts: l.state.Attempts(),
		Deliveries: l.state.Delivery, Seq: l.state.Seq, Worker: l.k.cfg.Worker, History: l.state.History,
	}
	if l.Job.ID != "" {
		d.Job = &l.Job
	} else {
		d.Raw = l.msg.Data()
	}
	return d
}

// writeLetter writes a dead letter and gives its place.
func (l *Lease) writeLetter(ctx context.Context, d record.DeadLetter) (at uint64, err error) {
	err = again(ctx, func(ctx context.Context) (err error) {
		at, err = l.k.c.putLetter(ctx, d)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("write dead letter: %w", err)
	}
	return at, nil
}

// recordDeath records that the job is dead. If another lease is on record by now, it
// withdraws the letter at that place, unless the job is dead there too.
func (l *Lease) recordDeath(ctx context.Context, reason string, at uint64) error {
	var now record.State
	err := l.update(ctx, func(cur record.Job, exists bool) (record.Job, error) {
		if now = cur.State; exists && l.Job.ID != "" && cur.Lease != l.id {
			return cur, ErrSuperseded // since the letter was written
		}
		next := l.state
		next.State, next.Error, next.Letter, next.Attempt = record.StateDead, reason, true, l.state.Attempts()
		return next, nil
	})
	if errors.Is(err, ErrSuperseded) && now != record.StateDead {
		err = errors.Join(err, l.k.c.withdrawLetter(ctx, l.state.Run, l.state.Job, at))
	}
	if err != nil {
		return fmt.Errorf("record it: %w", err)
	}
	return nil
}

// withdrawIfDone withdraws the letter at that place if a worker that was taken for
// lost has done the job since its death was recorded.
func (l *Lease) withdrawIfDone(ctx context.Context, at uint64) error {
	done := false
	err := l.update(ctx, func(cur record.Job, exists bool) (record.Job, error) {
		done = exists && cur.State == record.StateDone
		return cur, errKeep
	})
	if err == nil && done {
		err = l.k.c.withdrawLetter(ctx, l.state.Run, l.state.Job, at)
	}
	if err != nil {
		return fmt.Errorf("check whether it is done: %w", err)
	}
	return nil
}

// nak gives the message back. The delay is never zero: without one, the message is
// redelivered at once and reaches MaxDeliver within milliseconds.
func (l *Lease) nak(ctx context.Context, delay time.Duration) error {
	if l.orphaned(ctx) {
		return nil
	}
	return l.k.c.sure(ctx, func() error { return l.msg.NakWithDelay(max(delay, time.Millisecond)) })
}

// errOrphaned: the queue was recreated since the delivery.
var errOrphaned = errors.New("the queue that delivered it no longer exists")

// orphaned reports whether the queue was recreated since the delivery. The message's reply
// subject then names no message, or another one: an ack would never be answered, or
// would remove that other message. It asks the server only if the connection has been
// broken since.
func (l *Lease) orphaned(ctx context.Context) bool {
	if l.k.c.nc.Stats().Reconnects == l.reconnects {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	now, err := l.k.c.js.Consumer(ctx, jobStream, runDurable(l.origin.Run))
	return err == nil && !now.CachedInfo().Created.Equal(l.made)
}

// sure sends a message without a reply, and waits until the server has read it.
func (c *Client) sure(ctx context.Context, send func() error) error {
	return again(ctx, func(ctx context.Context) error {
		if err := send(); err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		return c.nc.FlushWithContext(ctx)
	})
}

// backoff is d doubled n times, at most most, with jitter.
func backoff(d, most time.Duration, n int) time.Duration {
	for ; n > 0 && d < most; n-- {
		d *= 2
	}
	return conn.Jitter(min(d, most))
}

// failure is the outcome of an attempt that ended with err.
func failure(err error) record.Outcome {
	if errors.Is(err, ErrStalled) {
		return record.OutcomeStalled
	}
	return record.OutcomeFailed
}
