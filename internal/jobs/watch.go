package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// WatchRun calls state for the newest record of each of the run's jobs, current
// once they are all told, then state for each change, until ctx ends; it returns
// ctx's cause then. A record may be told twice. It holds a few hundred records at
// most, goes on through reconnects, and waits for state, which may take its time.
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

// RecordsSince is when the bucket of the jobs' records was made: another time,
// other records.
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

// JobStates lists the newest record of each of the run's jobs, through state. A
// job that no worker has taken has none.
func (c *Client) JobStates(ctx context.Context, run string, state func(record.Job)) error {
	if !score.ValidRunID(run) {
		return fmt.Errorf("list jobs: %q is not a run ID", run)
	}
	return c.fail("list jobs of run "+run, list(ctx, c, "KV_"+JobBucket, "$KV."+JobBucket+"."+run+".*", record.DecodeJob, state))
}
