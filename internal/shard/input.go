package shard

import (
	"context"
	"io"
	"io/fs"

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
