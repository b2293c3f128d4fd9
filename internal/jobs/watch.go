package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// WatchRun calls state for the newest record of each of the run's jobs, then current,
// then state for each change, until ctx ends, and returns ctx's cause then. It may call
// state twice for a record. It holds at most a few hundred records, resumes after
// reconnects, and waits for state, which may take long.
func (c *Client) WatchRun(ctx context.Context, run string, state func(record.Job), current func()) error {
	if !score.ValidRunID(run) {
		return fmt.Errorf("watch run: %q is not a run ID", run)
	}
	f := &follower{
		c: c, stream: "KV_" + JobBucket, filter: "$KV." + JobBucket + "." + run + ".*",
		each: func(m jetstream.Msg) error {
			if deleted(m) {
				return nil
			}
			s, err := record.DecodeJob(m.Data())
			if err != nil {
				c.log.Warn().Err(err).Str("subject", m.Subject()).Msg("record skipped")
				return nil
			}
			state(s)
			return nil
		},
		current: func() error {
			if current != nil {
				current()
			}
			return nil
		},
	}
	return c.fail("watch run "+run, f.run(ctx))
}

// RecordsSince is when the bucket of the jobs' records was created, which identifies the
// bucket.
func (c *Client) RecordsSince(ctx context.Context) (time.Time, error) {
	var made time.Time
	err := read(ctx, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, "KV_"+JobBucket)
		if err == nil {
			made = s.CachedInfo().Created
		}
		return err
	})
	return made, c.fail("look at the jobs' records", err)
}

// JobStates calls state for the newest record of each of the run's jobs. Jobs that no
// worker has taken have none.
func (c *Client) JobStates(ctx context.Context, run string, state func(record.Job)) error {
	if !score.ValidRunID(run) {
		return fmt.Errorf("list jobs: %q is not a run ID", run)
	}
	return c.fail("list jobs of run "+run, list(ctx, c, "KV_"+JobBucket, "$KV."+JobBucket+"."+run+".*",
		record.DecodeJob, state))
}
