package store

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"surprisal/internal/score"
)

// FileVersion is the version of a local file.
func FileVersion(st fs.FileInfo) string {
	return fmt.Sprintf("%d-%d", st.Size(), st.ModTime().UnixNano())
}

// Resolve turns a person's argument into a place: a path is made absolute, a
// file URL becomes a path, other URLs are checked and written in one way. A
// glob stays one.
func Resolve(arg string) (string, error) {
	if rest, ok := strings.CutPrefix(arg, "file://"); ok {
		rest = strings.TrimPrefix(rest, "localhost")
		if !filepath.IsAbs(rest) {
			return "", fmt.Errorf("%q names no absolute path: file URLs are file:///path", arg)
		}
		return filepath.Clean(rest), nil
	}
	if !score.IsURL(arg) {
		return filepath.Abs(arg)
	}
	p, err := score.SplitPlace(arg)
	if err != nil {
		return "", err
	}
	return p.String(), nil
}

// Join gives the place of a clean relative name below dir, which must be valid.
func Join(dir, name string) string {
	p, err := score.ParsePlace(dir)
	if err != nil || p.Scheme == "" {
		return filepath.Join(dir, filepath.FromSlash(name))
	}
	return p.Join(name).String()
}

// Split gives the folder that a file is in, and its name there.
func Split(name string) (dir, file string) {
	p, err := score.ParsePlace(name)
	if err != nil || p.Scheme == "" {
		return filepath.Dir(name), filepath.Base(name)
	}
	dir, file = path.Split(p.Key)
	p.Key = strings.TrimSuffix(dir, "/")
	return p.String(), file
}

// openFile opens a local file and says what it is.
func openFile(ctx context.Context, name string) (*Object, error) {
	f, st, err := openLocal(ctx, name)
	if err != nil {
		return nil, err
	}
	return ofFile(name, f, st), nil
}

// OfFile is a local file that is open already; Close closes it.
func OfFile(name string, f *os.File) (*Object, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return ofFile(name, f, st), nil
}

func ofFile(name string, f *os.File, st fs.FileInfo) *Object {
	return &Object{Info: Info{Name: name, Size: st.Size(), Version: FileVersion(st), Modified: st.ModTime()}, file: f}
}
