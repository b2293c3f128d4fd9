package outdir

import (
	"context"
	"fmt"

	"surprisal/internal/score"
	"surprisal/internal/shard"
)

// Create starts the job's score file as a hidden temporary in the folder of its
// name. The caller must Commit or Abort it; Abort after Commit does nothing.
func Create(ctx context.Context, job score.Job, kept *shard.Columns, meta shard.Metadata) (*shard.Writer, error) {
	w, err := create(ctx, job, kept, meta)
	if err != nil {
		return nil, fmt.Errorf("create output %s: %w", job.Output, err)
	}
	return w, nil
}

func create(ctx context.Context, job score.Job, kept *shard.Columns, meta shard.Metadata) (*shard.Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := job.Validate(); err != nil {
		return nil, err
	}
	place, err := openPlace(ctx, job.Out)
	if err != nil {
		return nil, err
	}
	return shard.NewWriter(place, job, kept, meta)
}
