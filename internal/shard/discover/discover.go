package discover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/store"
)

const parquetSuffix = ".parquet"

// Problem is something met while looking for inputs that can't be one: an
// unreadable folder, a dangling link, a name that can't be passed on.
type Problem struct {
	Path string
	Err  error
}

// Inputs lists the files that args name, in order of Rel. An argument is
//
//   - a file, whatever its suffix; Rel is its base name;
//   - a folder: every *.parquet below it, Rel relative to it; in a folder without
//     any, every file of JSON lines (.jsonl, .ndjson, with .gz or .zst or without);
//   - a glob (*, ?, [a-z], {a,b}, ** for any number of folders), expanded here
//     when the shell was kept from it by quotes; Rel is relative to the folder
//     before the first wildcard. Folders that it matches are taken as folders,
//     files only with the suffix unless the glob's last part names another.
//
// Folders and globs pass over names that begin with _ or a dot, and over
// exclude (OUT's absolute path, or empty). Links are followed. A file that is
// reached twice is taken once.
//
// Rels must differ, with and without .parquet: they name the scores' folders.
// Where those of several arguments clash, each is put below the name of the
// folder that its argument stands for, numbered if that is not enough: files
// a/x.parquet and b/x.parquet become a/x.parquet and b/x.parquet.
//
// Arguments may be URLs (see package store) of a file, a folder or a glob in a
// bucket or a hub repository, or of one file of an https server.
//
// An argument that is missing, or names no input, is an error in one line that
// says what to do.
func Inputs(ctx context.Context, args []string, exclude string) ([]score.Input, []Problem, error) {
	if len(args) == 0 {
		return nil, nil, errors.New("no input: name a parquet file, a folder or a glob")
	}
	d := &discovery{ctx: ctx, seen: map[string]bool{}}
	if place.IsURL(exclude) {
		p, err := place.Parse(exclude)
		if err != nil {
			return nil, nil, err
		}
		d.excludeURL = &p
	} else if exclude != "" {
		abs, err := filepath.Abs(exclude)
		if err != nil {
			return nil, nil, err
		}
		d.exclude = append(d.exclude, abs)
		if real, err := filepath.EvalSymlinks(abs); err == nil && real != abs {
			d.exclude = append(d.exclude, real)
		}
	}
	for i, arg := range args {
		d.arg = i
		if err := d.argument(arg); err != nil {
			return nil, d.problems, err
		}
	}
	if err := d.resolveClashes(); err != nil {
		return nil, d.problems, err
	}
	inputs := make([]score.Input, len(d.found))
	for i, f := range d.found {
		inputs[i] = f.in
	}
	slices.SortFunc(inputs, func(a, b score.Input) int { return strings.Compare(a.Rel, b.Rel) })
	return inputs, d.problems, nil
}

// found is an input with what names it when its Rel clashes.
type found struct {
	in   score.Input
	arg  int
	base string // of the folder that the argument stands for
}

type discovery struct {
	ctx     context.Context // of the one call of Discover
	exclude []string
	// excludeURL is OUT when it is in a bucket.
	excludeURL *place.Place
	arg        int
	found      []found
	seen       map[string]bool
	lines      bool // folders are searched for JSON lines
	problems   []Problem
}

func (d *discovery) argument(arg string) error {
	if arg == "" {
		return errors.New("an input argument is empty: name a parquet file, a folder or a glob")
	}
	abs, err := place.Resolve(arg)
	if err != nil {
		return fmt.Errorf("input %w", err)
	}
	if place.IsURL(abs) {
		return d.url(abs)
	}
	st, err := os.Stat(abs) // before globs: a name may have brackets in it
	glob := hasMeta(arg)
	switch {
	case err == nil && st.IsDir():
		n := len(d.seen)
		problems := len(d.problems)
		d.walk(abs, abs, nil)
		if len(d.seen) == n && len(d.problems) == problems && !d.covered(abs) {
			d.lines = true // of a folder without parquet
			d.walk(abs, abs, nil)
			d.lines = false
		}
		if len(d.seen) == n && !d.covered(abs) {
			if len(d.problems) > problems {
				p := d.problems[problems]
				return fmt.Errorf("input %s: no readable %s file in this folder (%s: %w)", arg, parquetSuffix, p.Path,
					p.Err)
			}
			return fmt.Errorf("input %s: no %s or .jsonl file in this folder or below it; "+
				"name files with another suffix one by one or by a glob", arg, parquetSuffix)
		}
		return nil
	case err == nil && st.Mode().IsRegular():
		d.add(abs, filepath.Dir(abs), st)
		return nil
	case err == nil:
		return fmt.Errorf("input %s: neither a file nor a folder", arg)
	case glob:
		return d.glob(arg, abs)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("input %s: no such file or folder; check the path", arg)
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("input %s: can't be read: %w", arg, err)
}

// covered reports whether an earlier argument took all that is below dir.
func (d *discovery) covered(dir string) bool {
	for _, f := range d.found {
		if under(f.in.Path, dir) {
			return true
		}
	}
	return false
}

func under(path, dir string) bool {
	return path == dir ||
		strings.HasPrefix(path, strings.TrimSuffix(dir, string(filepath.Separator))+string(filepath.Separator))
}

func (d *discovery) excluded(path string) bool {
	return slices.ContainsFunc(d.exclude, func(x string) bool { return under(path, x) })
}

func hidden(name string) bool { return strings.HasPrefix(name, "_") || strings.HasPrefix(name, ".") }

func (d *discovery) problem(path string, err error) {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	d.problems = append(d.problems, Problem{path, err})
}

// add takes a file whose Rel is relative to base.
func (d *discovery) add(path, base string, st fs.FileInfo) {
	if d.seen[path] {
		return
	}
	rel, err := filepath.Rel(base, path)
	if err != nil {
		d.problem(path, err)
		return
	}
	rel = filepath.ToSlash(rel)
	if !utf8.ValidString(path) {
		d.problem(path, errors.New("the name is not UTF-8; rename it"))
		return
	}
	if err := score.ValidRel(rel); err != nil {
		d.problem(path, fmt.Errorf("%w; rename it", err))
		return
	}
	d.seen[path] = true
	d.found = append(d.found, found{
		score.Input{Path: path, Rel: rel, Size: st.Size(), Version: store.FileVersion(st)}, d.arg, filepath.Base(base),
	})
}

// takes reports whether a folder's file is an input by its name.
func (d *discovery) takes(name string) bool {
	if d.lines {
		return jsonl.Is(name)
	}
	return strings.HasSuffix(name, parquetSuffix)
}

// walk takes every *.parquet, or every file of JSON lines, below dir. up are the folders that dir is in, by
// their real paths, so that links can't lead in circles.
func (d *discovery) walk(dir, base string, up []string) {
	if d.excluded(dir) {
		return
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		d.problem(dir, err)
		return
	}
	if slices.Contains(up, real) || d.excluded(real) {
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		d.problem(dir, err)
		return
	}
	up = append(slices.Clip(up), real)
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(dir, name)
		if hidden(name) || d.excluded(path) {
			continue
		}
		st, err := os.Stat(path)
		if err != nil {
			if d.takes(name) {
				d.problem(path, err)
			}
			continue
		}
		switch {
		case st.IsDir():
			d.walk(path, base, up)
		case d.takes(name) && st.Mode().IsRegular():
			d.add(path, base, st)
		case d.takes(name):
			d.problem(path, errors.New("neither a file nor a folder"))
		}
	}
}

// resolveClashes gives inputs whose scores would go to one folder other Rels.
func (d *discovery) resolveClashes() error {
	key := func(rel string) string { return strings.TrimSuffix(rel, parquetSuffix) }
	count := map[string]int{}
	for _, f := range d.found {
		count[key(f.in.Rel)]++
	}
	taken := map[string]bool{}
	for k, n := range count {
		if n == 1 {
			taken[k] = true
		}
	}
	// OUT's own files are nobody's folder.
	own := func(k string) bool {
		first, _, _ := strings.Cut(k, "/")
		return first == score.ManifestName || first == score.SuccessName
	}
	for i := range d.found {
		f := &d.found[i]
		if count[key(f.in.Rel)] == 1 && !own(key(f.in.Rel)) {
			continue
		}
		base := f.base
		if base == string(filepath.Separator) || base == "." || own(base) {
			base = "input"
		}
		rel := base + "/" + f.in.Rel
		for n := 2; taken[key(rel)]; n++ {
			rel = fmt.Sprintf("%s-%d/%s", base, n, f.in.Rel)
		}
		taken[key(rel)] = true
		f.in.Rel = rel
		if err := score.ValidRel(rel); err != nil {
			return fmt.Errorf("input %s: %w; rename it", f.in.Path, err)
		}
	}
	return nil
}
