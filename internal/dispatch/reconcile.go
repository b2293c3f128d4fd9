package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"

	"surprisal/internal/jobs"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/shard/pq"
	"surprisal/internal/usage"
)

// Committed is the part of a run that OUT holds.
type Committed struct {
	Jobs   map[string]bool // IDs of committed jobs
	Totals shard.Totals
	// Foreign are score files in OUT that belong to no job of the run.
	Foreign []string
}

// Reconcile compares OUT with the manifest, reading only the footers of score files.
// Scores of another run under a job's file name are an error: they are not replaced.
func Reconcile(ctx context.Context, m *score.Manifest) (*Committed, error) {
	c := &Committed{Jobs: map[string]bool{}}
	outputs, prefix := m.Outputs(), place.Join(m.Out, "")
	err := outdir.InspectAll(ctx, m.Out, func(path string, got shard.Committed, err error) error {
		j, ours := outputs.Job(strings.TrimPrefix(strings.TrimPrefix(path, prefix), "/"))
		switch {
		case !ours:
			c.Foreign = append(c.Foreign, path)
		case errors.Is(err, pq.ErrCorrupt):
			// Damaged by the disk or a crash: its job is scored again and replaces it.
		case err != nil:
			return err
		case got.Job != j.ID || got.ConfigDigest != j.ConfigDigest:
			return usage.Errorf("%s holds scores of job %s of run %s, not of this run: choose another --out", path,
				got.Job, got.Run)
		default:
			c.Jobs[j.ID] = true
			c.Totals.Add(got.Totals)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) && len(c.Jobs)+len(c.Foreign) == 0 {
		return c, nil // OUT does not exist yet
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", m.Out, err)
	}
	return c, nil
}

// pending lists the manifest's jobs that OUT does not hold.
func pending(m *score.Manifest, c *Committed) iter.Seq[score.Job] {
	return func(yield func(score.Job) bool) {
		for j := range m.AllJobs() {
			if !c.Jobs[j.ID] && !yield(j) {
				return
			}
		}
	}
}

// countPending is the number of pending jobs.
func countPending(m *score.Manifest, c *Committed) int { return m.JobCount() - len(c.Jobs) }

// markDone marks committed jobs done that have a dead letter: a worker that was
// taken for lost finished after all.
func markDone(ctx context.Context, client *jobs.Client, run string, c *Committed) error {
	letters, err := client.Dead(ctx, run)
	for _, l := range letters {
		if err == nil && c.Jobs[l.ID] {
			err = client.MarkDone(ctx, run, l.ID)
		}
	}
	return err
}
