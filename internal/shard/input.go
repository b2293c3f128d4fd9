package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"surprisal/internal/score"
	"surprisal/internal/store"
)

// fileVersion is what Input.Version says of a local file.
func fileVersion(st fs.FileInfo) string { return store.FileVersion(st) }

// source is a file that is open for reading until its context ends.
type source struct {
	io.ReaderAt
	*store.Object
}

// CheckInput reports whether an input is still the file that was planned; the
// error wraps ErrInputChanged or fs.ErrNotExist.
func CheckInput(ctx context.Context, in score.Input) error {
	have, err := openSource(ctx, in.Path)
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
func openInput(ctx context.Context, in score.Input) (source, error) {
	o, err := store.OpenVersion(ctx, store.Info{Name: in.Path, Size: in.Size, Version: in.Version})
	if err != nil {
		return source{}, err
	}
	return source{o.Reader(ctx), o}, nil
}

// openSource opens a file as it is now.
func openSource(ctx context.Context, name string) (source, error) {
	o, err := store.Open(ctx, name)
	if err != nil {
		return source{}, err
	}
	return source{o.Reader(ctx), o}, nil
}

// localSource is a file that was opened in another way.
func localSource(name string, f *os.File) (source, error) {
	o, err := store.OfFile(name, f)
	if err != nil {
		return source{}, errors.Join(err, f.Close())
	}
	return source{f, o}, nil
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
