package simnats

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
)

// TestListThroughLostDeliveries: a list of records is whole, and ends, whichever of
// its messages get lost, the last one included.
func TestListThroughLostDeliveries(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			n := New(seed, Faults{Latency: 10 * time.Millisecond})
			nc := n.Conn("c")
			c := jobs.New(conn.Wrap(nc, zerolog.Nop()), nc.JetStream(), conn.Config{Log: zerolog.Nop()})
			if err := c.Setup(t.Context(), jobs.Topology{}); err != nil {
				t.Fatal(err)
			}
			const records = 8
			for i := range records {
				b, err := record.Job{Run: "run", Job: fmt.Sprint("job", i), State: record.StateDone}.Encode()
				if err == nil {
					_, err = nc.JetStream().Publish(t.Context(), "$KV."+jobs.JobBucket+".run."+fmt.Sprint("job", i), b)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			n.SetFaults(Faults{Latency: 10 * time.Millisecond, Delivery: .3})
			got := map[string]bool{}
			start := time.Now()
			if err := c.JobStates(t.Context(), "run", func(s record.Job) { got[s.Job] = true }); err != nil {
				t.Fatal(err)
			}
			if len(got) != records || time.Since(start) > 10*time.Minute {
				t.Errorf("seed %d: %d of %d records in %s", seed, len(got), records, time.Since(start))
			}
			c.Close()
			n.End()
		})
	}
}

// TestQueueRunThroughLostAnswers: no request of a submission is asked only once.
func TestQueueRunThroughLostAnswers(t *testing.T) {
	steps := []struct {
		name string
		do   func(context.Context, *jobs.Client) error
	}{
		{"set up", func(ctx context.Context, c *jobs.Client) error { return c.Setup(ctx, jobs.Topology{}) }},
		{"record", func(ctx context.Context, c *jobs.Client) error {
			if err := c.PutRun(ctx, record.Run{ID: "run"}); !errors.Is(err, jobs.ErrRunExists) {
				return err
			}
			return nil
		}},
		{"open", func(ctx context.Context, c *jobs.Client) error {
			return c.OpenRun(ctx, "run", 0, record.RunConfig{}, record.RunConfig{})
		}},
		{"reprioritize", func(ctx context.Context, c *jobs.Client) error {
			return c.OpenRun(ctx, "run", 1, record.RunConfig{}, record.RunConfig{})
		}},
		{"hold", func(ctx context.Context, c *jobs.Client) error { return c.PauseRun(ctx, "run") }},
		{"number", func(ctx context.Context, c *jobs.Client) error { _, err := c.NextEpoch(ctx, "run"); return err }},
		{"close", func(ctx context.Context, c *jobs.Client) error { return c.CloseRun(ctx, "run") }},
	}
	faults := Faults{Latency: 10 * time.Millisecond, Request: .01, Reply: .03}
	for seed := range uint64(16) {
		synctest.Test(t, func(t *testing.T) {
			n := New(seed, faults)
			nc := n.Conn("c")
			c := jobs.New(conn.Wrap(nc, zerolog.Nop()), nc.JetStream(), conn.Config{Log: zerolog.Nop()})
			for _, s := range steps {
				if err := s.do(t.Context(), c); err != nil {
					t.Errorf("seed %d, %s: %v", seed, s.name, err)
				}
			}
			c.Close()
			n.End()
		})
	}
}
