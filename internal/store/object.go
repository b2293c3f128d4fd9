package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"surprisal/internal/place"
)

// Info describes a file in a store.
type Info struct {
	Name    string // its place
	Size    int64  // bytes
	Version string // changes when the file does
	// Modified is zero if the store does not report it.
	Modified time.Time
}

// Object is a file that is open for reading, pinned to one version.
type Object struct {
	Info
	file   *os.File // if local
	bucket bucket   // otherwise
	key    string
}

// Open opens the file in its current version.
func Open(ctx context.Context, name string) (*Object, error) {
	p, err := place.Parse(name)
	if err != nil {
		return nil, err
	}
	if p.Scheme == "" {
		return openFile(ctx, name)
	}
	if err := fenceOf(ctx).Check(name); err != nil {
		return nil, err
	}
	b, err := bucketOf(ctx, p)
	if err != nil {
		return nil, err
	}
	info, err := stat(ctx, b, p)
	if err != nil {
		return nil, err
	}
	return &Object{Info: info, bucket: b, key: p.Key}, nil
}

// Modified is when the file was written; zero if the store does not report it.
func Modified(ctx context.Context, name string) (time.Time, error) {
	o, err := Open(ctx, name)
	if err != nil {
		return time.Time{}, err
	}
	return o.Modified, o.Close()
}

// OpenVersion opens a file with a known size and version. If a local file has changed,
// it returns ErrChanged. For other files that check would cost a request, so the first
// read reports it.
func OpenVersion(ctx context.Context, want Info) (*Object, error) {
	p, err := place.Parse(want.Name)
	if err != nil {
		return nil, err
	}
	if p.Scheme == "" {
		o, err := openFile(ctx, want.Name)
		if errors.Is(err, errNotRegular) {
			return nil, fmt.Errorf("%s: %w: %w", want.Name, ErrChanged, errNotRegular)
		}
		if err != nil {
			return nil, err
		}
		o.Info = want
		if err := o.Unchanged(); err != nil {
			_ = o.Close()
			return nil, err
		}
		return o, nil
	}
	if err := fenceOf(ctx).Check(want.Name); err != nil {
		return nil, err
	}
	b, err := bucketOf(ctx, p)
	if err != nil {
		return nil, err
	}
	return &Object{Info: want, bucket: b, key: p.Key}, nil
}

// Local reports whether the file is local, so that reads cost no request.
func (o *Object) Local() bool { return o.file != nil }

// Unchanged checks a local file again, because reads of it cannot be conditional. For
// other files it does nothing.
func (o *Object) Unchanged() error {
	if o.file == nil {
		return nil
	}
	st, err := o.file.Stat()
	if err != nil {
		return err
	}
	if v := FileVersion(st); st.Size() != o.Size || v != o.Version {
		return fmt.Errorf("%s: %w: it was %s (size-mtime) and is %s", o.Name, ErrChanged, o.Version, v)
	}
	return nil
}

// Reader reads the object's bytes until ctx ends. It may be used concurrently.
func (o *Object) Reader(ctx context.Context) io.ReaderAt {
	if o.file != nil {
		return o.file
	}
	return readerAt{ctx, o}
}

// Close closes a local file.
func (o *Object) Close() error {
	if o.file == nil {
		return nil
	}
	return o.file.Close()
}

type readerAt struct {
	ctx context.Context // of Reader: io.ReaderAt has no parameter for one
	o   *Object
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > r.o.Size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), r.o.Size-off)
	if err := r.o.readRange(r.ctx, p[:n], off); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// File is an Object and what reads it.
type File struct {
	io.ReaderAt
	*Object
}

// File gives the object with its Reader of ctx.
func (o *Object) File(ctx context.Context) File { return File{o.Reader(ctx), o} }

// OpenFile opens a file as it is now, to be read until ctx ends.
func OpenFile(ctx context.Context, name string) (File, error) {
	o, err := Open(ctx, name)
	if err != nil {
		return File{}, err
	}
	return o.File(ctx), nil
}
