package jobs

import (
	"context"
	"errors"
	"fmt"

	"surprisal/internal/jobs/record"
)

// RetryDead records that a run's dead jobs are waiting, so that a watching dispatcher
// does not take an old death for a new one, and returns how many there are. Call it
// before Submit, while none of them is queued. Dead letters stay until the job is done.
func (c *Client) RetryDead(ctx context.Context, run string) (int, error) {
	var dead []string
	if err := c.JobStates(ctx, run, func(s record.Job) {
		if s.State == record.StateDead {
			dead = append(dead, s.Key())
		}
	}); err != nil {
		return 0, err
	}
	for i, key := range dead {
		err := again(ctx, func(ctx context.Context) error {
			kv, err := c.bucket(ctx, JobBucket)
			if err != nil {
				return err
			}
			_, err = swapRecord(ctx, kv, key, func(s record.Job, exists bool) (record.Job, error) {
				if !exists || s.State != record.StateDead {
					return s, errKeep
				}
				s.State, s.Letter, s.Error = record.StateWaiting, true, ""
				return s, nil
			})
			if err != nil && !errors.Is(err, errKeep) {
				return err
			}
			return nil
		})
		if err != nil {
			return i, c.fail(fmt.Sprintf("retry job %s", key), err)
		}
	}
	return len(dead), nil
}

// MarkDone records that a dead job is done, because its output exists: a worker that
// was taken for lost finished after all. It deletes the dead letter.
func (c *Client) MarkDone(ctx context.Context, run, job string) error {
	op := "mark done job " + job
	err := again(ctx, func(ctx context.Context) error {
		kv, err := c.bucket(ctx, JobBucket)
		if err != nil {
			return err
		}
		key := record.Job{Run: run, Job: job}.Key()
		_, err = swapRecord(ctx, kv, key, func(s record.Job, exists bool) (record.Job, error) {
			if !exists || s.State != record.StateDead {
				return s, errKeep
			}
			s.State, s.Letter, s.Error = record.StateDone, false, ""
			return s, nil
		})
		if errors.Is(err, errKeep) {
			return nil
		}
		return err
	})
	if err == nil {
		err = again(ctx, func(ctx context.Context) error { return c.dropLetter(ctx, run, job) })
	}
	return c.fail(op, err)
}
