package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"surprisal/internal/place"
)

// ErrOutside means that the place is outside of the allowed ones.
var ErrOutside = errors.New("outside of the allowed places")

// Fence is a set of folders and URL prefixes. Under a context made by Within, files are
// opened below one of them or not at all. A local folder is held open and names are
// resolved from there, so neither .. nor a link leads outside, even one created between
// a check and its use. A nil Fence restricts nothing.
type Fence struct {
	flag  string // its command-line flag, for errors
	posts []post
}

// post is one place of a fence.
type post struct {
	place place.Place
	dir   string   // if a local folder: absolute and clean
	root  *os.Root // if a local folder
}

// NewFence creates a fence around the places given with a flag; nil if there are none.
// Local folders must exist. The caller must Close it.
func NewFence(flag string, places []string) (*Fence, error) {
	if len(places) == 0 {
		return nil, nil
	}
	f := &Fence{flag: flag}
	for _, name := range places {
		p, err := newPost(name)
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("--%s %s: %w", flag, name, err)
		}
		f.posts = append(f.posts, p)
	}
	return f, nil
}

func newPost(name string) (post, error) {
	p, err := place.Parse(name)
	if err != nil || p.Scheme != "" {
		p.Key = strings.TrimSuffix(p.Key, "/")
		return post{place: p}, err
	}
	root, err := os.OpenRoot(name)
	return post{place: p, dir: name, root: root}, err
}

// Close closes the folders.
func (f *Fence) Close() error {
	if f == nil {
		return nil
	}
	var errs []error
	for _, p := range f.posts {
		if p.root != nil {
			errs = append(errs, p.root.Close())
		}
	}
	return errors.Join(errs...)
}

// Check returns ErrOutside for a place whose name alone leads outside. It opens nothing.
func (f *Fence) Check(name string) error {
	if f == nil {
		return nil
	}
	_, _, err := f.find(name)
	return err
}

// find returns the folder that contains a local name, and the rest of the name. For a URL
// below an allowed one it returns no folder.
func (f *Fence) find(name string) (*os.Root, string, error) {
	place, err := place.Parse(name)
	if err != nil {
		return nil, "", err
	}
	for _, p := range f.posts {
		switch {
		case p.place.Scheme != place.Scheme:
		case p.root != nil:
			// Check this before resolving: a .. after a link means one folder to the kernel
			// and another to a reader of the name.
			if rel, err := filepath.Rel(p.dir, name); err == nil && filepath.IsLocal(rel) && !hasDotDot(name) {
				return p.root, rel, nil
			}
		case p.place.Host == place.Host && (p.place.Rev == "" || p.place.Rev == place.Rev) &&
			p.place.Query == place.Query &&
			!hasDotDot(place.Key) &&
			(p.place.Key == "" || place.Key == p.place.Key || strings.HasPrefix(place.Key, p.place.Key+"/")):
			return nil, "", nil
		}
	}
	return nil, "", f.outside(name)
}

func hasDotDot(name string) bool {
	for part := range strings.SplitSeq(filepath.ToSlash(name), "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

func (f *Fence) outside(name string) error {
	return fmt.Errorf("%s: %w (--%s)", name, ErrOutside, f.flag)
}

// escaped turns os.Root's error, which has no name, into ErrOutside.
func (f *Fence) escaped(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) && strings.Contains(pe.Err.Error(), "escapes from parent") {
		return f.outside(name)
	}
	return err
}

// Resolve follows the links of a local name; the result must be inside as well. It is for
// files whose bytes are verified after opening.
func (f *Fence) Resolve(name string) (string, error) {
	if f == nil || place.IsURL(name) {
		return name, f.Check(name)
	}
	if err := f.Check(name); err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return "", err
	}
	for _, p := range f.posts {
		if p.root == nil {
			continue
		}
		dir, err := filepath.EvalSymlinks(p.dir)
		if err != nil {
			return "", err
		}
		if rel, err := filepath.Rel(dir, real); err == nil && filepath.IsLocal(rel) {
			return real, nil
		}
	}
	return "", f.outside(name)
}

type fenceKey struct{}

// Within returns a context under which files are opened inside f only.
func Within(ctx context.Context, f *Fence) context.Context {
	if f == nil {
		return ctx
	}
	return context.WithValue(ctx, fenceKey{}, f)
}

func fenceOf(ctx context.Context) *Fence {
	f, _ := ctx.Value(fenceKey{}).(*Fence)
	return f
}

// OpenFolder opens a local folder and creates it if it is missing.
func OpenFolder(ctx context.Context, dir string) (*os.Root, error) {
	f := fenceOf(ctx)
	if f == nil {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, err
		}
		return os.OpenRoot(dir)
	}
	root, rel, err := f.find(dir)
	switch {
	case err != nil:
		return nil, err
	case root == nil:
		return nil, fmt.Errorf("%s: %w", dir, ErrUnsupported)
	}
	if err := root.MkdirAll(rel, 0o777); err != nil {
		return nil, f.escaped(dir, err)
	}
	sub, err := root.OpenRoot(rel)
	return sub, f.escaped(dir, err)
}

// openLocal opens a regular file below the folders that ctx allows.
func openLocal(ctx context.Context, name string) (*os.File, fs.FileInfo, error) {
	look, open := os.Stat, os.Open
	if f := fenceOf(ctx); f != nil {
		root, rel, err := f.find(name)
		if err != nil {
			return nil, nil, err
		}
		look = func(string) (fs.FileInfo, error) { st, err := root.Stat(rel); return st, f.escaped(name, err) }
		open = func(string) (*os.File, error) { o, err := root.Open(rel); return o, f.escaped(name, err) }
	}
	st, err := look(name) // first, because opening a named pipe would block forever
	if err != nil {
		return nil, nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, nil, &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	o, err := open(name)
	if err != nil {
		return nil, nil, err
	}
	if st, err = o.Stat(); err != nil || !st.Mode().IsRegular() {
		_ = o.Close()
		if err == nil {
			err = &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
		}
		return nil, nil, err
	}
	return o, st, nil
}
