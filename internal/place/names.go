package place

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// Resolve turns a command-line argument into a place: a path becomes absolute, a file URL
// becomes a path, other URLs are checked and normalised. A glob stays a glob.
func Resolve(arg string) (string, error) {
	if rest, ok := strings.CutPrefix(arg, "file://"); ok {
		rest = strings.TrimPrefix(rest, "localhost")
		if !filepath.IsAbs(rest) {
			return "", fmt.Errorf("%q is not an absolute path: file URLs are file:///path", arg)
		}
		return filepath.Clean(rest), nil
	}
	if !IsURL(arg) {
		return filepath.Abs(arg)
	}
	p, err := ParseArg(arg)
	if err != nil {
		return "", err
	}
	return p.String(), nil
}

// Join gives the place of a clean relative name below dir, which must be valid.
func Join(dir, name string) string {
	p, err := Parse(dir)
	if err != nil || p.Scheme == "" {
		return filepath.Join(dir, filepath.FromSlash(name))
	}
	return p.Join(name).String()
}

// Split gives the folder that a file is in, and its name there.
func Split(name string) (dir, file string) {
	p, err := Parse(name)
	if err != nil || p.Scheme == "" {
		return filepath.Dir(name), filepath.Base(name)
	}
	dir, file = path.Split(p.Key)
	p.Key = strings.TrimSuffix(dir, "/")
	return p.String(), file
}

// Rel is name relative to dir, which it is below, without queries.
func Rel(dir, name string) string {
	d, err := ParseArg(dir)
	n, err2 := ParseArg(name)
	if err != nil || err2 != nil {
		return name
	}
	return strings.TrimPrefix(strings.TrimPrefix(n.Key, d.Key), "/")
}
