package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"

	"surprisal/internal/place"
)

// Condition restricts when Put may write. The zero value is no restriction.
type Condition struct {
	// Absent: only if the file does not exist; fs.ErrExist otherwise.
	Absent bool
	// Version: only if the file has this version; ErrChanged otherwise.
	Version string
}

// Put writes size bytes of body as one file of a bucket, whole or not at all, and returns
// its version. Name must be a URL of a writable store.
func Put(ctx context.Context, name string, body io.ReaderAt, size int64, when Condition) (info Info, err error) {
	p, w, err := writableOf(ctx, name)
	if err != nil {
		return Info{}, err
	}
	if c, ok := w.(*cloud); ok && c.s3 != nil && size > partBytes {
		info, err = c.putParts(ctx, p.Key, body, size, when)
	} else {
		err = retry(ctx, name, func() (_ bool, err error) {
			info, err = w.put(ctx, p.Key, io.NewSectionReader(body, 0, size), size, when)
			return false, err
		})
	}
	if when.Absent && errors.Is(err, ErrChanged) {
		err = &Error{name, "the file already exists", fs.ErrExist}
	}
	return info, err
}

// PutBytes is Put for a byte slice.
func PutBytes(ctx context.Context, name string, b []byte, when Condition) (Info, error) {
	return Put(ctx, name, bytes.NewReader(b), int64(len(b)), when)
}

// Remove deletes a file of a bucket; a missing file is not an error.
func Remove(ctx context.Context, name string) error {
	p, w, err := writableOf(ctx, name)
	if err != nil {
		return err
	}
	return retry(ctx, name, func() (bool, error) {
		err := w.remove(ctx, p.Key)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, err
	})
}

func writableOf(ctx context.Context, name string) (p place.Place, w writable, err error) {
	p, b, err := at(ctx, name)
	if err != nil {
		return p, nil, err
	}
	w, ok := b.(writable)
	if !ok {
		return p, nil, &Error{name, "not writable: use a local path, s3, gs or az", ErrUnsupported}
	}
	return p, w, nil
}
