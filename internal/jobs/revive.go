package jobs

import (
	"context"
	"errors"
	"fmt"
)

// Revive records of a run's dead jobs that they are to be submitted again, so
// that nobody who watches takes an old death for a new one. Call it before
// Submit, while none of them is queued. Dead letters stay until the job is done.
func (c *Client) Revive(ctx context.Context, run string) (int, error) {
	var dead []string
	if err := c.JobStates(ctx, run, func(s JobState) {
		if s.State == StateDead {
			dead = append(dead, s.key())
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
			_, err = swapRecord(ctx, kv, key, func(s JobState, exists bool) (JobState, error) {
				if !exists || s.State != StateDead {
					return s, errKeep
				}
				s.State, s.Letter, s.Error = StateWaiting, true, ""
				return s, nil
			})
			if err != nil && !errors.Is(err, errKeep) {
				return err
			}
			return nil
		})
		if err != nil {
			return i, c.fail(fmt.Sprintf("revive job %s", key), err)
		}
	}
	return len(dead), nil
}

// Redeem records that a dead job is done: its output is there after all, by a
// worker that was taken for lost. Its dead letter goes.
func (c *Client) Redeem(ctx context.Context, run, job string) error {
	op := "redeem job " + job
	err := again(ctx, func(ctx context.Context) error {
		kv, err := c.bucket(ctx, JobBucket)
		if err != nil {
			return err
		}
		_, err = swapRecord(ctx, kv, JobState{Run: run, Job: job}.key(), func(s JobState, exists bool) (JobState, error) {
			if !exists || s.State != StateDead {
				return s, errKeep
			}
			s.State, s.Letter, s.Error = StateDone, false, ""
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
