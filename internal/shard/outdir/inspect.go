package outdir

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"path/filepath"
	"regexp"
	"runtime"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/place"
	"surprisal/internal/shard"
	"surprisal/internal/store"
)

var outputName = regexp.MustCompile(`^rows-[0-9]{12}-[0-9]{12}\.parquet$`)

// ListOutputs walks out for score files, giving their places in order. It ends
// at the first error.
func ListOutputs(ctx context.Context, out string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if place.IsURL(out) {
			for info, err := range store.List(ctx, out) {
				if err != nil {
					yield("", fmt.Errorf("list outputs: %w", err))
					return
				}
				if outputName.MatchString(path.Base(place.Rel(out, info.Name))) && !yield(info.Name, nil) {
					return
				}
			}
			return
		}
		abs, err := filepath.Abs(out)
		if err != nil {
			yield("", err)
			return
		}
		err = filepath.WalkDir(abs, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.Type().IsRegular() && outputName.MatchString(d.Name()) && !yield(p, nil) {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			yield("", fmt.Errorf("list outputs: %w", err))
		}
	}
}

// InspectAll inspects all of out's score files, several at a time, and calls do
// for each, one call at a time, in order of path; err is what Inspect gave. An
// error of do ends it.
func InspectAll(ctx context.Context, out string, do func(path string, c shard.Committed, err error) error) error {
	type result struct {
		path string
		c    shard.Committed
		err  error
	}
	workers := 4 * runtime.GOMAXPROCS(0) // mostly waiting for disks
	if place.IsURL(out) {
		workers = 64 // or for a network
	}
	g, ctx := errgroup.WithContext(ctx)
	// A queue of one-result channels keeps the order; its room bounds how far
	// the inspections run ahead of do.
	queue := make(chan chan result, workers)
	g.Go(func() error {
		defer close(queue)
		var inner errgroup.Group
		inner.SetLimit(workers)
		defer inner.Wait()
		for path, err := range ListOutputs(ctx, out) {
			if err != nil {
				return err
			}
			one := make(chan result, 1) // so that no inspection waits for do
			select {
			case queue <- one:
			case <-ctx.Done():
				return ctx.Err()
			}
			inner.Go(func() error {
				c, err := shard.Inspect(ctx, path)
				one <- result{path, c, err}
				return nil
			})
		}
		return nil
	})
	g.Go(func() error {
		for one := range queue {
			select {
			case r := <-one:
				if err := do(r.path, r.c, r.err); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return g.Wait()
}
