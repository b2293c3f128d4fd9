package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// fenced is a folder in with a file, a folder beside it, and links of all kinds.
func fenced(t *testing.T) (dir string, f *Fence) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"in/deep/a", "in-not/a", "out/secret"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o777),
			os.WriteFile(path, []byte("hello"), 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"in/inside": "deep/a", "in/leads-out": "../out/secret", "in/absolute": filepath.Join(dir, "out/secret"),
		"in/folder-out": "../out", "in/dev": "/dev/zero", "to-in": "in",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "in/pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := NewFence("allow-input", []string{filepath.Join(dir, "in"), "s3://bucket/pre/fix/", "https://host/data"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return dir, f
}

func TestFenceOpen(t *testing.T) {
	dir, f := fenced(t)
	ctx := Within(t.Context(), f)
	for name, want := range map[string]error{
		"in/deep/a": nil, "in/inside": nil, "in/gone": fs.ErrNotExist, "in/pipe": errNotRegular,
		"in/deep":      errNotRegular,
		"in/leads-out": ErrOutside, "in/absolute": ErrOutside, "in/folder-out/secret": ErrOutside, "in/dev": ErrOutside,
		"in/../out/secret": ErrOutside, "in/deep/../../out/secret": ErrOutside,
		"in/folder-out/../in/deep/a": ErrOutside,
		"in-not/a":                   ErrOutside,
		"out/secret":                 ErrOutside, "to-in/deep/a": ErrOutside, "/etc/passwd": ErrOutside,
	} {
		path := dir + "/" + name // not cleaned
		if name[0] == '/' {
			path = name
		}
		o, err := Open(ctx, path)
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if err == nil {
			if err := o.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if o, err := Open(t.Context(), filepath.Join(dir, "in/leads-out")); err != nil {
		t.Errorf("without a fence: %v", err)
	} else if err := o.Close(); err != nil {
		t.Error(err)
	}
}

// TestFenceHoldsTheFolder: the folder that was opened counts, whatever its name
// means later.
func TestFenceHoldsTheFolder(t *testing.T) {
	dir, f := fenced(t)
	in := filepath.Join(dir, "in")
	if err := errors.Join(os.Rename(in, in+"-moved"), os.Symlink("out", in)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Within(t.Context(), f), filepath.Join(in, "secret")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder put in its place: %v", err)
	}
}

func TestFenceFolder(t *testing.T) {
	dir, f := fenced(t)
	ctx := Within(t.Context(), f)
	for name, want := range map[string]error{
		"in": nil, "in/new/er": nil, "in/deep": nil, "in/folder-out": ErrOutside, "in/folder-out/new": ErrOutside,
		"in/../out": ErrOutside, "out": ErrOutside, "else": ErrOutside,
	} {
		root, err := OpenFolder(ctx, dir+"/"+name)
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if err == nil {
			if err := root.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	for _, name := range []string{"out/new", "else"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
	if root, err := OpenFolder(context.Background(), filepath.Join(dir, "else")); err != nil {
		t.Errorf("without a fence: %v", err)
	} else if err := root.Close(); err != nil {
		t.Error(err)
	}
}

func TestFenceURL(t *testing.T) {
	_, f := fenced(t)
	ctx := Within(t.Context(), f)
	for name, inside := range map[string]bool{
		"s3://bucket/pre/fix/a": true, "s3://bucket/pre/fixed/a": false, "s3://bucket/a": false, "s3://other/pre/fix/a": false,
		"s3://bucket/pre/fix/../../a": false, "s3://bucket/pre/fix/a?endpoint=http://169.254.169.254": false,
		"gs://bucket/pre/fix/a": false, "https://host/data/a": true, "https://host.evil/data/a": false, "https://host/datum": false,
		"https://host:444/data/a": false,
	} {
		err := f.Check(name)
		if (err == nil) != inside {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Open(ctx, name); !inside && err == nil {
			t.Errorf("%s was opened", name)
		}
	}
	if err := (*Fence)(nil).Check("anything"); err != nil {
		t.Error(err)
	}
}

func TestFenceResolve(t *testing.T) {
	dir, f := fenced(t)
	for name, want := range map[string]error{"in/inside": nil, "in/leads-out": ErrOutside, "in/folder-out": ErrOutside,
		"out": ErrOutside} {
		if _, err := f.Resolve(filepath.Join(dir, name)); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestFenceNeedsItsFolders(t *testing.T) {
	dir, _ := fenced(t)
	for _, name := range []string{filepath.Join(dir, "gone"), filepath.Join(dir, "out/secret"), "s3://", "ftp://host/x"} {
		if f, err := NewFence("allow-input", []string{name}); err == nil {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if f, err := NewFence("allow-input", nil); f != nil || err != nil {
		t.Errorf("%v, %v", f, err)
	}
}
