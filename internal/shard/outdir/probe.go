package outdir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"surprisal/internal/place"
	"surprisal/internal/store"
)

// Health is what a look at an output folder showed.
type Health struct {
	At string // the folder tried: out, or the nearest one above it that is there
	// Links: files are published by a hard link, which never overwrites. Otherwise
	// by a rename after a look.
	Links bool
	// SyncedFolders: a crash does not lose a file's name.
	SyncedFolders bool
	// Free and Total bytes of its file system, for those who are not root.
	Free, Total uint64
}

// Probe does in out what publishing a score file does: write, sync, link or
// rename, sync the folder; in a bucket, put a file twice, of which the second must
// be refused. Nothing is left behind.
func Probe(ctx context.Context, out string) (h Health, err error) {
	if place.IsURL(out) {
		return Health{At: out}, probeBucket(ctx, out)
	}
	if err := ctx.Err(); err != nil {
		return h, err
	}
	for {
		if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) || out == filepath.Dir(out) {
			break
		}
		out = filepath.Dir(out)
	}
	h.At = out
	o, err := openOut(ctx, out)
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	f, temp, err := o.create(".", tempPrefix+"probe")
	if err != nil {
		return h, err
	}
	name := path.Join(".", temp+".published")
	defer func() { err = errors.Join(err, o.Remove(temp), o.Remove(name)) }()
	_, werr := f.Write(make([]byte, 64<<10))
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return h, fmt.Errorf("write and sync a file: %w", err)
	}
	switch err := o.hardLink(temp, name); {
	case err == nil:
		h.Links = true
	case !unsupported(err):
		return h, fmt.Errorf("link a file: %w", err)
	default:
		if err := o.root.Rename(temp, name); err != nil {
			return h, fmt.Errorf("rename a file: %w", err)
		}
	}
	d, err := o.root.Open(".")
	if err != nil {
		return h, err
	}
	h.SyncedFolders = d.Sync() == nil
	if err := d.Close(); err != nil {
		return h, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(out, &st); err != nil {
		return h, fmt.Errorf("ask for free space: %w", err)
	}
	h.Free, h.Total = uint64(st.Bavail)*uint64(st.Bsize), uint64(st.Blocks)*uint64(st.Bsize)
	return h, nil
}

func probeBucket(ctx context.Context, out string) (err error) {
	name := place.Join(out, tempPrefix+"probe."+rand.Text()+tempSuffix)
	if _, err := store.PutBytes(ctx, name, []byte("one"), store.Condition{Absent: true}); err != nil {
		return fmt.Errorf("put a file: %w", err)
	}
	defer func() { err = errors.Join(err, store.Remove(ctx, name)) }()
	switch _, err := store.PutBytes(ctx, name, []byte("two"), store.Condition{Absent: true}); {
	case err == nil:
		return fmt.Errorf("the bucket overwrote an existing file: conditional writes (If-None-Match) are not supported")
	case !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("put a file twice: %w", err)
	}
	b, err := readSmall(ctx, name)
	if err == nil && string(b) != "one" {
		err = fmt.Errorf("it reads back as %q", b)
	}
	return err
}
