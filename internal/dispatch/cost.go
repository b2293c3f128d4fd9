package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
	"surprisal/internal/shard/outdir"
)

// costOf sums the GPU time and energy of the run's committed jobs, as the queue's
// records have it. Unreadable records do not fail a run: the cost is zero then.
func costOf(ctx context.Context, client *jobs.Client, run string, log zerolog.Logger) score.Cost {
	var c score.Cost
	made, err := client.RecordsSince(ctx)
	if err == nil {
		c.Queue = made.UTC().Format(time.RFC3339Nano)
		err = addRecords(ctx, client, run, &c)
	}
	if err != nil {
		if ctx.Err() == nil {
			log.Warn().Err(err).Msg("GPU time and energy of the run's jobs are unknown")
		}
		return score.Cost{}
	}
	return c
}

func addRecords(ctx context.Context, client *jobs.Client, run string, c *score.Cost) error {
	return client.JobStates(ctx, run, func(s record.Job) {
		t := s.Totals
		if s.State != record.StateDone || t == nil || t.GPUSeconds == nil || !(*t.GPUSeconds >= 0) {
			return
		}
		c.Jobs++
		c.GPUTokens, c.GPUSeconds = c.GPUTokens+t.Tokens, c.GPUSeconds+*t.GPUSeconds
		if t.Joules != nil && *t.Joules >= 0 {
			c.Spend(s.Updated, t.Tokens, *t.Joules)
		}
	})
}

// keepCost adds the cost to the manifest in OUT and to m, unless the manifest is no
// longer m's or another dispatcher has taken over the run.
func keepCost(ctx context.Context, t tenure, m *score.Manifest, cost score.Cost) error {
	there, err := outdir.ReadManifest(ctx, m.Out)
	if err != nil {
		return fmt.Errorf("save the run's cost: %w", err)
	}
	if there.Run != m.Run || !sameFiles(there.Files, m.Files) || !t.Held() {
		return nil
	}
	changed := there.Charge(cost)
	m.Costs = there.Costs
	if !changed {
		return nil
	}
	if err := outdir.ReplaceManifest(ctx, m.Out, there); err != nil {
		return fmt.Errorf("save the run's cost: %w", err)
	}
	return nil
}

// bill adds the cost to the run's manifest and its summary. A failure to write the
// manifest does not fail the run.
func bill(ctx context.Context, t tenure, m *score.Manifest, sum *Summary, cost score.Cost, log zerolog.Logger) {
	if m.Charge(cost) && t.Held() {
		if err := keepCost(ctx, t, m, cost); err != nil {
			log.Warn().Err(err).Msg("GPU time and energy of the run's jobs were not added to the manifest")
		}
	}
	sum.price(m.Cost())
}

// price fills in the parts of c that are known.
func (s *Summary) price(c score.Cost) {
	if v, ok := c.JoulesPerMillionTokens(); ok {
		joules := c.Joules
		s.Joules, s.JoulesPerMillionTokens = &joules, &v
	}
	if v, ok := c.GPUDaysPerBillionTokens(); ok {
		seconds := c.GPUSeconds
		s.GPUSeconds, s.GPUDaysPerBillionTokens = &seconds, &v
	}
}
