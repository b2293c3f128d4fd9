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

// Committed is what OUT holds of a run.
type Committed struct {
	Jobs   map[string]bool // ids of committed jobs
	Totals shard.Totals
	// Foreign are score files in OUT that no job of the run made, and unreadable
	// ones that have no job's name.
	Foreign []string
}

// Reconcile compares OUT with the manifest, from the footers of its score files
// alone. A job's name taken by scores that are not the job's is an error: they
// are somebody's, and are not replaced.
func Reconcile(ctx context.Context, m *score.Manifest) (*Committed, error) {
	c := &Committed{Jobs: map[string]bool{}}
	outputs, prefix := m.Outputs(), place.Join(m.Out, "")
	err := outdir.InspectAll(ctx, m.Out, func(path string, got shard.Committed, err error) error {
		j, ours := outputs.Job(strings.TrimPrefix(strings.TrimPrefix(path, prefix), "/"))
		switch {
		case !ours:
			c.Foreign = append(c.Foreign, path)
		case errors.Is(err, pq.ErrCorrupt):
			// Torn by a disk or a crash elsewhere: its job is scored again and replaces it.
		case err != nil:
			return err
		case got.Job != j.ID || got.ConfigDigest != j.ConfigDigest:
			return usage.Errorf("%s holds scores of job %s of run %s, not of this run: choose another --out", path, got.Job, got.Run)
		default:
			c.Jobs[j.ID] = true
			c.Totals.Add(got.Totals)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) && len(c.Jobs)+len(c.Foreign) == 0 {
		return c, nil // no such folder yet
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", m.Out, err)
	}
	return c, nil
}

// pending are the manifest's jobs that OUT does not hold.
func pending(m *score.Manifest, c *Committed) iter.Seq[score.Job] {
	return func(yield func(score.Job) bool) {
		for j := range m.AllJobs() {
			if !c.Jobs[j.ID] && !yield(j) {
				return
			}
		}
	}
}

// countPending is how many there are.
func countPending(m *score.Manifest, c *Committed) int { return m.JobCount() - len(c.Jobs) }

// redeem takes back the dead letters of jobs that are committed: a worker that
// was taken for lost had come to its end.
func markDone(ctx context.Context, client *jobs.Client, run string, c *Committed) error {
	letters, err := client.Dead(ctx, run)
	for _, l := range letters {
		if err == nil && c.Jobs[l.ID] {
			err = client.MarkDone(ctx, run, l.ID)
		}
	}
	return err
}
