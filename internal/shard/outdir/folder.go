package outdir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"surprisal/internal/failpoint"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/store"
)

// Names of hidden temporaries: .rows-<run>.<unique>.tmp
const (
	tempPrefix = ".rows-"
	tempSuffix = ".tmp"
)

// outDir is a run's output folder. Everything goes through os.Root, so that no
// name and no link inside it leads out of it.
type outDir struct {
	dir      string
	root     *os.Root
	hardLink func(from, to string) error // root.Link, but in tests
}

func openOut(ctx context.Context, dir string) (*outDir, error) {
	if place.IsURL(dir) {
		return nil, fmt.Errorf("%s: %w: this works in local folders only", dir, store.ErrUnsupported)
	}
	root, err := store.OpenFolder(ctx, dir)
	if err != nil {
		return nil, err
	}
	return &outDir{dir: dir, root: root, hardLink: root.Link}, nil
}

func (o *outDir) Close() error            { return o.root.Close() }
func (o *outDir) Path(name string) string { return filepath.Join(o.dir, filepath.FromSlash(name)) }

// Remove removes a file; that it is gone already is no error.
func (o *outDir) Remove(name string) error {
	if err := o.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Temporary makes the hidden file that becomes job.Output.
func (o *outDir) Temporary(job score.Job) (*os.File, string, error) {
	dir := path.Dir(job.Output)
	if err := o.mkdirAll(dir); err != nil {
		return nil, "", err
	}
	return o.create(dir, tempPrefix+job.Run)
}

func (o *outDir) create(dir, prefix string) (*os.File, string, error) {
	name := path.Join(dir, prefix+"."+rand.Text()+tempSuffix)
	f, err := o.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	return f, name, err
}

// mkdirAll makes dir and makes sure that a crash does not lose it.
func (o *outDir) mkdirAll(dir string) error {
	if _, err := o.root.Stat(dir); err == nil {
		return nil
	}
	if err := o.root.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for p := path.Dir(dir); ; p = path.Dir(p) {
		if err := o.syncDir(p); err != nil {
			return err
		}
		if p == "." {
			return nil
		}
	}
}

// syncDir makes a folder's entries last. Some file systems can't; they say EINVAL
// or ENOTSUP and make entries last by themselves.
func (o *outDir) syncDir(dir string) error {
	d, err := o.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !unsupported(err) && !errors.Is(err, errInvalid) {
		return err
	}
	return nil
}

// Publish links the temporary to its name.
func (o *outDir) Publish(_ context.Context, f *os.File, temp, name string, c shard.Committed) (shard.Committed, error) {
	if err := f.Close(); err != nil {
		return c, err
	}
	if err := failpoint.Hit(failpoint.BeforeRename); err != nil {
		return c, err
	}
	// Twice: a broken file in the way is removed once.
	for range 2 {
		err := o.link(temp, name)
		if err == nil {
			err = failpoint.Hit(failpoint.AfterRename)
			if err != nil {
				return c, err
			}
			return c, o.syncDir(path.Dir(name))
		}
		if !errors.Is(err, fs.ErrExist) {
			return c, err
		}
		there, err := o.inspect(name)
		if errors.Is(err, shard.ErrNotParquet) {
			if err := o.Remove(name); err != nil {
				return c, err
			}
			continue
		}
		if there, err = compare(there, err, c, o.Path(name)); err != nil {
			return c, err
		}
		// The other attempt may have crashed between its link and its sync.
		return there, o.syncDir(path.Dir(name))
	}
	return c, fmt.Errorf("%w: %s reappears each time it is removed", shard.ErrConflict, o.Path(name))
}

// link publishes without overwriting. Where hard links are not supported, a
// rename after a look has to do: a race is then between two attempts at one
// job, whose scores are the same.
func (o *outDir) link(temp, name string) error {
	err := o.hardLink(temp, name)
	if err != nil && unsupported(err) {
		if _, err := o.root.Lstat(name); err == nil {
			return &fs.PathError{Op: "rename", Path: name, Err: fs.ErrExist}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return o.root.Rename(temp, name)
	}
	return err
}

func (o *outDir) inspect(name string) (shard.Committed, error) {
	st, err := o.root.Lstat(name)
	if err != nil {
		return shard.Committed{}, err
	}
	if !st.Mode().IsRegular() {
		return shard.Committed{}, fmt.Errorf("it is not a regular file")
	}
	f, err := o.root.Open(name)
	if err != nil {
		return shard.Committed{}, err
	}
	defer f.Close()
	c, err := shard.InspectFile(f, st.Size())
	c.Path = o.Path(name)
	return c, err
}

// writeFile writes a small file whole or not at all. Without replace an
// existing one stays and the error wraps fs.ErrExist.
func (o *outDir) writeFile(name string, body []byte, replace bool) error {
	return o.putFile(".", tempPrefix+"root", name, replace, func(w io.Writer) error {
		_, err := w.Write(body)
		return err
	})
}

// putFile writes content to a temporary file in dir, syncs it and gives it its name.
func (o *outDir) putFile(dir, prefix, name string, replace bool, content func(io.Writer) error) (err error) {
	f, temp, err := o.create(dir, prefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Remove(temp)) }()
	if err = content(f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if replace {
		err = o.root.Rename(temp, name)
	} else {
		err = o.link(temp, name)
	}
	if err != nil {
		return err
	}
	return o.syncDir(dir)
}

// RemoveTemporaries removes the hidden temporaries of run (of any run when
// empty) in out that are older than age, and says how many. age must be longer
// than a job takes: a worker that is alive may be writing the younger ones.
func RemoveTemporaries(ctx context.Context, out, run string, age time.Duration) (int, error) {
	if place.IsURL(out) {
		return 0, nil // there are none in a bucket
	}
	n := 0
	before := time.Now().Add(-age)
	err := filepath.WalkDir(out, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		name := d.Name()
		if !d.Type().IsRegular() || !strings.HasPrefix(name, tempPrefix) || !strings.HasSuffix(name, tempSuffix) ||
			(run != "" && !strings.HasPrefix(name, tempPrefix+run+".")) {
			return nil
		}
		st, err := d.Info()
		if err != nil || st.ModTime().After(before) {
			return nil // gone, or young
		}
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		n++
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("remove temporaries of %s: %w", out, err)
	}
	return n, nil
}
