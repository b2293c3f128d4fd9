package shard

import (
	"context"
	"fmt"

	"surprisal/internal/score"
	"surprisal/internal/store"
)

// CheckInput reports whether an input is still the file that was planned; the
// error wraps ErrInputChanged or fs.ErrNotExist.
func CheckInput(ctx context.Context, in score.Input) error {
	have, err := store.OpenFile(ctx, in.Path)
	if err != nil {
		return err
	}
	defer have.Close()
	if have.Size != in.Size || have.Version != in.Version {
		return fmt.Errorf("%s: %w: it was %s and is %s", in.Path, ErrInputChanged, in.Version, have.Version)
	}
	return nil
}

// openInput opens an input as it was planned; ErrInputChanged when it is another
// file now, here or, if it is not local, at the first read.
func openInput(ctx context.Context, in score.Input) (store.File, error) {
	o, err := store.OpenVersion(ctx, store.Info{Name: in.Path, Size: in.Size, Version: in.Version})
	if err != nil {
		return store.File{}, err
	}
	return o.File(ctx), nil
}

// Look gives an input as it is now: its size and version, under the same name.
func Look(ctx context.Context, in score.Input) (score.Input, error) {
	o, err := store.Open(ctx, in.Path)
	if err != nil {
		return in, err
	}
	in.Size, in.Version = o.Size, o.Version
	return in, o.Close()
}
