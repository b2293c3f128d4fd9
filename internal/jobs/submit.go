package jobs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/failpoint"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/score"
	"surprisal/internal/traces"
)

const (
	submitWindow  = 1024             // publishes in flight
	submitTimeout = 10 * time.Second // for one ack
	submitTries   = 8                // of one job, about half a minute
	// codePerSubject is the server's refusal of a second message on a subject.
	codePerSubject jetstream.ErrorCode = 10077
)

// publish is one job being published.
type publish struct {
	run, job string
	data     []byte
	tries    int
	future   jetstream.PubAckFuture
	ack      *jetstream.PubAck // result of the last try
	err      error
}

type submission struct {
	c               *Client
	epoch           uint64
	stream          jetstream.Stream // looked up at the first duplicate
	flight          []*publish       // in the order published
	queued, already int
	runs            map[string]time.Time // when workers were last notified
	parent          string               // of the jobs' spans; empty without tracing
	used            int                  // dropped by the server as duplicates of jobs that have left the queue
}

// Submit queues jobs. It checks the ack of each: if err is nil, all of them are in the
// queue, queued by this call or before. After an error it is safe to submit all of them
// again.
//
// epoch must be a new one from NextEpoch for each call. If it was used less than
// Topology.Duplicates ago, the server drops jobs that were acked since, and Submit
// returns ErrEpochUsed.
func (c *Client) Submit(ctx context.Context, jobs iter.Seq[score.Job], epoch uint64) (queued, already int, err error) {
	s := &submission{c: c, epoch: epoch, runs: map[string]time.Time{}, parent: traces.Parent(ctx)}
	err = s.run(perRequest{ctx}, jobs)
	if err == nil && s.used > 0 {
		err = fmt.Errorf("%w: %d jobs were recently queued under epoch %d and have left the queue: submit under a "+
			"new epoch", ErrEpochUsed, s.used, epoch)
	}
	for run := range s.runs {
		if aerr := c.announce(run, noticeQueued); aerr != nil {
			c.log.Debug().Err(aerr).Str("run", run).Msg("workers not notified; they find the jobs later")
		}
	}
	if err != nil {
		return s.queued, s.already, c.fail(fmt.Sprintf("submit jobs (%d queued, %d already)", s.queued, s.already), err)
	}
	return s.queued, s.already, nil
}

func (s *submission) run(ctx context.Context, jobs iter.Seq[score.Job]) error {
	for job := range jobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := job.Encode() // validates the IDs, so that the subject is valid
		if err != nil {
			return err
		}
		for len(s.flight) >= submitWindow {
			if err := s.settleOldest(ctx); err != nil {
				return err
			}
		}
		if err := failpoint.Hit(failpoint.MidSubmit); err != nil {
			return err
		}
		p := &publish{run: job.Run, job: job.ID, data: data}
		s.send(p)
		s.flight = append(s.flight, p)
	}
	for len(s.flight) > 0 {
		if err := s.settleOldest(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *submission) send(p *publish) {
	p.tries++
	msg := nats.NewMsg(jobSubject(p.run, p.job))
	msg.Data = p.data
	msg.Header.Set(jetstream.MsgIDHeader, p.run+"/"+p.job+"/"+strconv.FormatUint(s.epoch, 10))
	if s.parent != "" {
		msg.Header.Set(traces.Header, s.parent)
	}
	p.ack = nil
	p.future, p.err = s.c.js.PublishMsgAsync(msg, jetstream.WithStallWait(submitTimeout))
}

// settleOldest waits for the ack of the oldest publish, and repeats it if that may help.
func (s *submission) settleOldest(ctx context.Context) error {
	p := s.flight[0]
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := p.wait(ctx)
		if err == nil {
			err = s.count(ctx, p)
		}
		switch {
		case err == nil:
			s.flight[0] = nil
			s.flight = s.flight[1:]
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !worthAgain(err) || p.tries >= submitTries:
			return fmt.Errorf("job %s of run %s, try %d: %w", p.job, p.run, p.tries, err)
		}
		s.c.log.Warn().Err(err).Str("job", p.job).Int("try", p.tries).Msg("job not queued; retrying")
		conn.Sleep(ctx, conn.Jitter(wait))
		// A broken connection fails all publishes in flight: one wait is enough for them.
		// The message IDs stay the same, so that a lost ack does not queue a job twice.
		s.send(p)
		for _, q := range s.flight[1:] {
			if q.failed() && worthAgain(q.err) && q.tries < submitTries {
				s.send(q)
			}
		}
	}
}

func isPerSubject(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == codePerSubject
}

func worthAgain(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.Code >= 500
	}
	return !errors.Is(err, nats.ErrConnectionClosed)
}

// wait waits for the result. If the job is already queued, there is no ack, and no error.
func (p *publish) wait(ctx context.Context) error {
	if p.ack == nil && p.err == nil {
		select {
		case p.ack = <-p.future.Ok():
		case p.err = <-p.future.Err():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if isPerSubject(p.err) {
		return nil
	}
	return p.err
}

// failed reports whether the publish is known to have failed.
func (p *publish) failed() bool {
	if p.ack == nil && p.err == nil {
		select {
		case p.err = <-p.future.Err():
		default:
		}
	}
	return p.err != nil && !isPerSubject(p.err)
}

// count counts an ack. A duplicate only means that the message ID was used before: by an
// earlier try, or by an earlier submission whose message may have left the queue.
func (s *submission) count(ctx context.Context, p *publish) error {
	switch {
	case p.ack == nil:
		s.already++
		return nil
	case !p.ack.Duplicate || p.tries > 1:
		s.queued++
		// Workers need not wait until the last job is queued.
		if time.Since(s.runs[p.run]) > time.Second {
			s.runs[p.run] = time.Now()
			_ = s.c.announce(p.run, noticeQueued) // repeated at the end
		}
		return nil
	}
	if s.stream == nil {
		st, err := s.c.js.Stream(ctx, jobStream)
		if err != nil {
			return err
		}
		s.stream = st
	}
	_, err := s.stream.GetLastMsgForSubject(ctx, jobSubject(p.run, p.job))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		s.used++
	case err != nil:
		return err
	default:
		s.already++
	}
	return nil
}

// PurgeRun deletes a run's jobs from the queue, including those in hand, which workers
// finish and whose acks have no effect. Records and dead letters stay.
func (c *Client) PurgeRun(ctx context.Context, run string) error {
	if !score.ValidRunID(run) {
		return fmt.Errorf("purge run: %q is not a run ID", run)
	}
	err := read(ctx, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, jobStream)
		if err == nil {
			err = s.Purge(ctx, jetstream.WithPurgeSubject(jobSubject(run, "*")))
		}
		return err
	})
	return c.fail("purge run "+run, err)
}
