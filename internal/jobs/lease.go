package jobs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
	"surprisal/internal/traces"
)

// Lease is one delivery of one job to this worker, heartbeaten from receipt until
// it is settled, by exactly one of Done, Retry, Fail, Abandon and Decline. An
// error of these leaves the job to redelivery after AckWait.
type Lease struct {
	Job     score.Job
	Attempt int // 1 for the first
	// Prior is what the record said before; its State is empty when there was
	// none. StateDone: the job was done and its ack got lost; if the output is
	// there, Done with its totals is all that is left.
	Prior record.Job

	k        *Consumer
	run      record.RunConfig
	msg      jetstream.Msg
	log      zerolog.Logger
	id       string
	asked    time.Time // for a job
	received time.Time

	made       time.Time // when the consumer that delivered it was made
	reconnects uint64    // of the connection, at the receipt

	ctx     context.Context
	cancel  context.CancelCauseFunc
	moved   atomic.Int64 // nanoseconds after received
	beaten  atomic.Int64 // the last heartbeat, likewise
	settled atomic.Bool
	halt    chan struct{}
	halted  sync.Once
	beats   sync.WaitGroup

	origin   record.Job  // which delivery this is; it does not change
	recorded atomic.Bool // the start is on record
	state    record.Job  // as this lease last wrote it
}

// Context ends with its parent, when the lease is settled, or with ErrStalled as
// its cause when progress stopped. Heartbeats go on after the parent ended, until
// the lease is settled.
func (l *Lease) Context() context.Context { return l.ctx }

// TraceParent is the message's traces.Header; empty where the dispatcher did not trace.
func (l *Lease) TraceParent() string { return l.msg.Headers().Get(traces.Header) }

// Progress says that the job moves: call it at each batch.
func (l *Lease) Progress() { l.moved.Store(int64(time.Since(l.received))) }

// start begins the heartbeats. AckWait runs from the delivery, so they do too. It
// reports false where the client is closing.
func (l *Lease) start(work context.Context) bool {
	l.ctx, l.cancel = context.WithCancelCause(work)
	l.halt = make(chan struct{})
	l.k.mu.Lock()
	l.k.leases[l] = struct{}{}
	l.k.mu.Unlock()
	l.beats.Add(1)
	return l.k.c.spawn(func() {
		defer l.beats.Done()
		l.beat()
	})
}

// stop ends the heartbeats and waits: one sent after a Nak would undo its delay.
func (l *Lease) stop() {
	l.halted.Do(func() { close(l.halt) })
	l.beats.Wait()
	l.cancel(context.Canceled)
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	delete(l.k.leases, l)
}

func (l *Lease) beat() {
	every, sent := l.k.cfg.beat(l.run.AckWait), l.received
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-l.halt:
			return
		case <-l.k.c.closing:
			l.cancel(conn.ErrClosed)
			return
		case <-timer.C:
		}
		// A hung kernel leaves this goroutine alive: without progress the
		// heartbeat would keep a job for ever that nobody does.
		if still := time.Since(l.received) - time.Duration(l.moved.Load()); still > l.k.cfg.StallAfter {
			err := fmt.Errorf("%w for %s", ErrStalled, still.Round(time.Millisecond))
			l.log.Error().Dur("without_progress", still).Msg("job stalled; giving it up")
			l.reportStall(err)
			l.cancel(err)
			return
		}
		if time.Since(sent) >= l.run.AckWait && l.recorded.Load() && l.superseded() {
			return
		}
		next := every
		if err := l.msg.InProgress(); err != nil {
			l.log.Warn().Err(err).Msg("heartbeat not sent")
			next = every / 4
		} else {
			sent = time.Now()
			l.beaten.Store(int64(sent.Sub(l.received)))
		}
		timer.Reset(next)
	}
}

// record writes that this worker has the job. A verdict is why nobody may have it
// any more.
func (l *Lease) record(ctx context.Context) (verdict string, err error) {
	err = l.update(ctx, func(cur record.Job, exists bool) (record.Job, error) {
		if exists && cur.Lease == l.id {
			return cur, nil // an earlier try wrote it and the answer was lost
		}
		verdict = ""
		next := l.state
		l.Prior = record.Job{}
		if exists {
			l.Prior = cur
			next.Letter = cur.Letter || cur.State == record.StateDead
			next.History = cur.History
		}
		if exists && cur.SameMessage(next) {
			next.Failed, next.Lost, next.Error = cur.Failed, cur.Lost, cur.Error
			switch cur.State {
			case record.StateRunning:
				if cur.Delivery > next.Delivery && time.Since(l.asked) >= l.run.AckWait {
					return cur, ErrSuperseded // this process was frozen or cut off since it asked
				}
				// Whoever had it neither did it nor gave it back.
				next.Lost++
				next.History = cur.HistoryWithLost()
				if next.Lost >= l.run.MaxLost {
					verdict = fmt.Sprintf("%d workers vanished while working on it, most recently %s", next.Lost, cur.Worker)
				}
			case record.StateDead:
				verdict = cur.Error // the letter was written and the Term got lost
			}
		}
		next.Attempt = next.Attempts() + 1
		if verdict != "" {
			next.Attempt--
		}
		l.Attempt = next.Attempt
		return next, nil
	})
	if err != nil {
		return "", fmt.Errorf("record start of job %s: %w", l.Job.ID, err)
	}
	if p := l.Prior; p.State != "" && p.SameMessage(l.state) && p.Delivery > l.state.Delivery {
		l.log.Warn().Str("holder", p.Worker).Str("state", string(p.State)).
			Msg("worker was frozen or disconnected before it received the job, which was delivered again")
	}
	return verdict, nil
}

// superseded looks whether the job was delivered again while this process was
// frozen or cut off, and ends the lease's context then.
func (l *Lease) superseded() bool {
	ctx, cancel := l.k.c.untilClose(context.Background())
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	cur, err := l.k.c.jobState(ctx, l.origin.Run, l.origin.Job)
	if err != nil || cur.Lease == l.id || !cur.SameMessage(l.origin) {
		return false // nothing says that it was: the heartbeats go on
	}
	l.log.Warn().Str("holder", cur.Worker).Str("state", string(cur.State)).Dur("held", time.Since(l.received)).
		Msg("worker was frozen or disconnected for longer than the ack wait, and the job was delivered again; giving it up")
	l.cancel(ErrSuperseded)
	return true
}

// reportStall says in the job's record that it makes no progress: the worker
// may end before it settles the job.
func (l *Lease) reportStall(why error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	kv, err := l.k.c.bucket(ctx, JobBucket)
	if err == nil {
		_, err = swapRecord(ctx, kv, l.origin.Key(), func(cur record.Job, exists bool) (record.Job, error) {
			if !exists || cur.Lease != l.id || cur.State != record.StateRunning {
				return cur, errKeep
			}
			cur.Stalled = why.Error()
			return cur, nil
		})
	}
	if err != nil && !errors.Is(err, errKeep) {
		l.log.Warn().Err(err).Msg("stall not recorded")
	}
}

// errKeep tells update to leave the record as it is.
var errKeep = errors.New("keep the record")

// update changes the job's record by compare and swap, trying through a broken
// connection until ctx ends.
func (l *Lease) update(ctx context.Context, change func(cur record.Job, exists bool) (record.Job, error)) error {
	return again(ctx, func(ctx context.Context) error {
		kv, err := l.k.c.bucket(ctx, JobBucket)
		if err != nil {
			return err
		}
		next, err := swapRecord(ctx, kv, l.state.Key(), change)
		if errors.Is(err, errKeep) {
			return nil
		}
		if err == nil {
			l.state = next
		}
		return err
	})
}

func swapRecord(ctx context.Context, kv jetstream.KeyValue, key string, change func(record.Job, bool) (record.Job, error)) (record.Job, error) {
	var cur record.Job
	exists := false
	entry, err := kv.Get(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
	case err != nil:
		return cur, err
	default:
		// A record that can't be read counts as none and is written over.
		if cur, err = record.DecodeJob(entry.Value()); err == nil {
			exists = true
		}
	}
	next, err := change(cur, exists)
	if err != nil {
		return cur, permanent(err)
	}
	next.Updated = time.Now().UTC()
	b, err := next.Encode()
	if err != nil {
		return cur, permanent(err)
	}
	if entry == nil {
		_, err = kv.Create(ctx, key, b)
	} else {
		_, err = kv.Update(ctx, key, b, entry.Revision())
	}
	return next, err
}
