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

// Lease is one delivery of one job to this worker. It sends heartbeats from receipt until
// it is settled by exactly one of Done, Retry, Fail, Abandon and Decline. If these
// return an error, the job is redelivered after AckWait.
type Lease struct {
	Job     score.Job
	Attempt int // 1 for the first
	// Prior is the record before this lease; its State is empty if there was none. If it
	// is done, the job was done and its ack lost: if the output exists, only Done with
	// its totals remains.
	Prior record.Job

	k        *Consumer
	run      record.RunConfig
	msg      jetstream.Msg
	log      zerolog.Logger
	id       string
	asked    time.Time // when the job was requested
	received time.Time

	made       time.Time // when the consumer that delivered it was created
	reconnects uint64    // of the connection, at receipt

	ctx     context.Context // of this delivery: a lease lives from receipt to settling, across calls
	cancel  context.CancelCauseFunc
	moved   atomic.Int64 // when there was progress, in nanoseconds after received
	beaten  atomic.Int64 // when the last heartbeat was sent, likewise
	settled atomic.Bool
	halt    chan struct{}
	halted  sync.Once
	beats   sync.WaitGroup

	origin   record.Job  // identifies the delivery; never changes
	recorded atomic.Bool // the start is recorded
	state    record.Job  // as this lease last wrote it
}

// Context ends with its parent, when the lease is settled, or with ErrStalled as its
// cause if there is no progress. Heartbeats continue after the parent has ended, until
// the lease is settled.
func (l *Lease) Context() context.Context { return l.ctx }

// TraceParent is the message's traces.Header; empty if the dispatcher does not trace.
func (l *Lease) TraceParent() string { return l.msg.Headers().Get(traces.Header) }

// Progress notes that the job advances: call it at each batch.
func (l *Lease) Progress() { l.moved.Store(int64(time.Since(l.received))) }

// start begins the heartbeats. AckWait runs from the delivery, and so do they. It
// reports false if the client is closing.
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

// stop ends the heartbeats and waits for the last one: sent after a Nak, it would undo
// the delay.
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
		// A hung kernel does not stop this goroutine: without the check for progress, the
		// heartbeat would keep the job forever.
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

// record records that this worker has the job. A verdict is why the job is dead.
func (l *Lease) record(ctx context.Context) (verdict string, err error) {
	err = l.update(ctx, func(cur record.Job, exists bool) (record.Job, error) {
		if exists && cur.Lease == l.id {
			return cur, nil // an earlier try wrote it, and the reply was lost
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
					return cur, ErrSuperseded // this process was frozen or disconnected since its request
				}
				// The worker that had it neither settled it nor gave it back.
				next.Lost++
				next.History = cur.HistoryWithLost()
				if next.Lost >= l.run.MaxLost {
					verdict = fmt.Sprintf("%d workers vanished while working on it, most recently %s", next.Lost,
						cur.Worker)
				}
			case record.StateDead:
				verdict = cur.Error // the letter was written, but the Term lost
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

// superseded reports whether the job was delivered again while this process was frozen
// or disconnected. It ends the lease's context then.
func (l *Lease) superseded() bool {
	ctx, cancel := l.k.c.untilClose(context.Background())
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	cur, err := l.k.c.jobState(ctx, l.origin.Run, l.origin.Job)
	if err != nil || cur.Lease == l.id || !cur.SameMessage(l.origin) {
		return false // apparently not
	}
	l.log.Warn().Str("holder", cur.Worker).Str("state", string(cur.State)).Dur("held", time.Since(l.received)).
		Msg("worker was frozen or disconnected for longer than the ack wait, and the job was delivered again; " +
			"giving it up")
	l.cancel(ErrSuperseded)
	return true
}

// reportStall records that the job makes no progress: the worker may exit before it
// settles the job.
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

// errKeep makes update leave the record unchanged.
var errKeep = errors.New("keep the record")

// update changes the job's record by compare and swap, and retries until ctx ends if the
// connection is broken.
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

func swapRecord(
	ctx context.Context, kv jetstream.KeyValue, key string, change func(record.Job, bool) (record.Job, error),
) (record.Job, error) {
	var cur record.Job
	exists := false
	entry, err := kv.Get(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
	case err != nil:
		return cur, err
	default:
		// An unreadable record counts as none and is overwritten.
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
