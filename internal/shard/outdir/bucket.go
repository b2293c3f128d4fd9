package outdir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"surprisal/internal/failpoint"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/store"
)

// openPlace opens OUT to write to it.
func openPlace(ctx context.Context, out string) (shard.Place, error) {
	if place.IsURL(out) {
		return outBucket(out), nil
	}
	return openOut(ctx, out)
}

// outBucket is the URL of a prefix in a bucket. A score file is written to a
// local file first, which has no name any more, and is put there on the
// condition that the name is free.
type outBucket string

func (o outBucket) Path(name string) string { return place.Join(string(o), name) }

func (o outBucket) Temporary(job score.Job) (*os.File, string, error) {
	f, err := unnamed(tempPrefix + job.Run)
	return f, "", err
}

func (o outBucket) Publish(ctx context.Context, f *os.File, _, name string, c shard.Committed) (_ shard.Committed,
	err error) {
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err == nil {
		err = failpoint.Hit(failpoint.BeforeRename)
	}
	if err != nil {
		return c, err
	}
	// Twice: a broken file in the way is removed once.
	for range 2 {
		_, err := store.Put(ctx, o.Path(name), f, st.Size(), store.Condition{Absent: true})
		if err == nil {
			err = failpoint.Hit(failpoint.AfterRename)
		}
		if !errors.Is(err, fs.ErrExist) {
			return c, err
		}
		there, err := shard.Inspect(ctx, o.Path(name))
		if errors.Is(err, shard.ErrNotParquet) {
			if err := store.Remove(ctx, o.Path(name)); err != nil {
				return c, err
			}
			continue
		}
		return compare(there, err, c, o.Path(name))
	}
	return c, fmt.Errorf("%w: %s reappears each time it is removed", shard.ErrConflict, o.Path(name))
}

func (o outBucket) Remove(string) error { return nil }
func (o outBucket) Close() error        { return nil }

// compare decides on a name that is taken: the same scores are as good as ours,
// others are an alarm. inspected is the error of looking at them.
func compare(there shard.Committed, inspected error, c shard.Committed, path string) (shard.Committed, error) {
	switch {
	case errors.Is(inspected, store.ErrUnreachable), errors.Is(inspected, context.Canceled): // may pass
		return c, inspected
	case inspected != nil:
		return c, fmt.Errorf("%w: %s: %w", shard.ErrConflict, path, inspected)
	case there.Job != c.Job || there.ConfigDigest != c.ConfigDigest:
		return c, fmt.Errorf("%w: %s is of job %s with %s, this is job %s with %s",
			shard.ErrConflict, path, there.Job, there.ConfigDigest, c.Job, c.ConfigDigest)
	case there.Digest != c.Digest:
		return c, fmt.Errorf("%w: %s has scores of digest %s (%s on %s), this attempt %s (%s on %s)", shard.ErrConflict,
			path, there.Digest, there.Metadata.Engine, there.Metadata.Device, c.Digest, c.Metadata.Engine,
			c.Metadata.Device)
	}
	there.Existed = true
	return there, nil
}
