package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/store"
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
	want := map[string]score.Job{} // by path
	for _, j := range m.Jobs() {
		want[store.Join(m.Out, j.Output)] = j
	}
	err := shard.InspectAll(ctx, m.Out, func(path string, got shard.Committed, err error) error {
		j, ours := want[path]
		switch {
		case !ours:
			c.Foreign = append(c.Foreign, path)
		case errors.Is(err, shard.ErrCorrupt):
			// Torn by a disk or a crash elsewhere: its job is scored again and replaces it.
		case err != nil:
			return err
		case got.Job != j.ID || got.ConfigDigest != j.ConfigDigest:
			return usage("%s holds scores of job %s of run %s, not of this run: name another --out", path, got.Job, got.Run)
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
		return nil, fmt.Errorf("look through %s: %w", m.Out, err)
	}
	return c, nil
}

// pending are the manifest's jobs that OUT does not hold.
func pending(m *score.Manifest, c *Committed) []score.Job {
	var left []score.Job
	for _, j := range m.Jobs() {
		if !c.Jobs[j.ID] {
			left = append(left, j)
		}
	}
	return left
}
