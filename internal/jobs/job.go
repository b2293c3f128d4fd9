package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// Job is a job's newest record; ErrNoJob if no worker has taken the job.
func (c *Client) Job(ctx context.Context, run, job string) (record.Job, error) {
	if !score.ValidRunID(run) || !record.ValidToken(job) {
		return record.Job{}, fmt.Errorf("%w: %q of run %q is not a job ID", ErrNoJob, record.Clean(job, 80),
			record.Clean(run, 80))
	}
	var s record.Job
	err := read(ctx, func(ctx context.Context) (err error) {
		s, err = c.jobState(ctx, run, job)
		return err
	})
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return s, fmt.Errorf("%w: %s of run %s", ErrNoJob, job, run)
	}
	return s, c.fail("read job "+job+" of run "+run, err)
}

func (c *Client) jobState(ctx context.Context, run, job string) (record.Job, error) {
	e, err := c.lookUp(ctx, JobBucket, run+"."+job)
	if err != nil {
		return record.Job{}, err
	}
	return record.DecodeJob(e.Value())
}

// Letter is a job's dead letter; ErrNoJob if there is none.
func (c *Client) Letter(ctx context.Context, run, job string) (record.DeadLetter, error) {
	var d record.DeadLetter
	if !score.ValidRunID(run) || !record.ValidToken(job) {
		return d, fmt.Errorf("%w: %q of run %q is not a job ID", ErrNoJob, record.Clean(job, 80), record.Clean(run, 80))
	}
	var raw *jetstream.RawStreamMsg
	err := read(ctx, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, deadStream)
		if err == nil {
			raw, err = s.GetLastMsgForSubject(ctx, deadSubject(run, job))
		}
		return err
	})
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound), err == nil && raw.Header.Get(headerOperation) != "":
		return d, fmt.Errorf("%w: no dead letter of %s of run %s", ErrNoJob, job, run)
	case err != nil:
		return d, c.fail("read the dead letter of job "+job, err)
	}
	return record.DecodeDeadLetter(raw.Data)
}

// Queued is when a job's message was queued; zero if there is no message.
func (c *Client) Queued(ctx context.Context, run, job string) (time.Time, error) {
	if !score.ValidRunID(run) || !record.ValidToken(job) {
		return time.Time{}, fmt.Errorf("%w: %q of run %q is not a job ID", ErrNoJob, record.Clean(job, 80),
			record.Clean(run, 80))
	}
	var at time.Time
	err := read(ctx, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, jobStream)
		if err != nil {
			return err
		}
		raw, err := s.GetLastMsgForSubject(ctx, jobSubject(run, job))
		if err == nil {
			at = raw.Time.UTC()
		}
		return err
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return time.Time{}, nil
	}
	return at, c.fail("look for job "+job+" in the queue", err)
}
