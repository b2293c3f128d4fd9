package discover

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/store"
)

// url takes what an argument that is a URL names: as in local folders, a file
// whatever its suffix, every parquet file below a folder, or what a glob matches.
func (d *discovery) url(arg string) error {
	p, err := place.ParseArg(arg)
	if err != nil {
		return fmt.Errorf("input %w", err)
	}
	if err := place.ValidInputURL(p); err != nil {
		return fmt.Errorf("input %w", err)
	}
	if hasMeta(p.Key) {
		if p.Scheme == "https" {
			return fmt.Errorf("input %s: a web server can't be listed: name its files one by one", arg)
		}
		return d.urlGlob(arg, p)
	}
	p, err = place.Parse(arg)
	if err != nil {
		return fmt.Errorf("input %w", err)
	}
	if p.Key != "" {
		info, err := store.Stat(d.ctx, arg)
		if err == nil {
			p, err := place.Parse(info.Name)
			if err != nil {
				return fmt.Errorf("input %w", err)
			}
			base := p
			base.Key = strings.TrimPrefix(path.Dir("/"+p.Key), "/")
			d.addURL(info, base)
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) || p.Scheme == "https" {
			return fmt.Errorf("input %w", err)
		}
	}
	return d.urlFolder(arg, p)
}

// urlFolder takes every *.parquet below dir.
func (d *discovery) urlFolder(arg string, dir place.Place) error {
	n, problems, any := len(d.seen), len(d.problems), false
	var lines []store.Info // taken in a folder without parquet
	err := d.list(dir, func(info store.Info, p place.Place) {
		any = true
		switch {
		case hiddenBelow(dir.Key, p.Key):
		case d.takes(p.Key):
			dir.Rev = p.Rev
			d.addURL(info, dir)
		case jsonl.Is(p.Key):
			dir.Rev = p.Rev
			lines = append(lines, info)
		}
	})
	if err == nil && len(d.seen) == n && len(d.problems) == problems {
		for _, info := range lines {
			d.addURL(info, dir)
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("input %w", err)
	case !any:
		return fmt.Errorf("input %s: no such file or folder; check the name", arg)
	case len(d.seen) == n && len(d.problems) > problems:
		return fmt.Errorf("input %s: no usable %s file in this folder (%s: %w)", arg, parquetSuffix,
			d.problems[problems].Path, d.problems[problems].Err)
	case len(d.seen) == n && !slices.ContainsFunc(d.found, func(f found) bool { return inFolder(f.in.Path, dir) }):
		return fmt.Errorf("input %s: no %s file in this folder or below it; "+
			"name files with another suffix one by one or by a glob", arg, parquetSuffix)
	}
	return nil
}

func inFolder(name string, dir place.Place) bool {
	p, err := place.Parse(name)
	return err == nil && p.Within(dir)
}

// list calls do for the files below dir that are not OUT's.
func (d *discovery) list(dir place.Place, do func(store.Info, place.Place)) error {
	for info, err := range store.List(d.ctx, dir.String()) {
		if err != nil {
			return err
		}
		p, err := place.Parse(info.Name)
		if err != nil {
			if strings.HasSuffix(info.Name, parquetSuffix) {
				d.problem(info.Name, fmt.Errorf("%w; rename it", err))
			}
			continue
		}
		if d.excludeURL == nil || !p.Within(*d.excludeURL) {
			do(info, p)
		}
	}
	return nil
}

// hiddenBelow reports whether a part of key below dir is hidden.
func hiddenBelow(dir, key string) bool {
	return slices.ContainsFunc(strings.Split(strings.TrimPrefix(strings.TrimPrefix(key, dir), "/"), "/"), hidden)
}

// urlGlob takes what a pattern matches, by one listing for each folder before a
// wildcard.
func (d *discovery) urlGlob(arg string, p place.Place) error {
	patterns, err := expandBraces(p.Key)
	if err != nil {
		return fmt.Errorf("input %s: %w", arg, err)
	}
	byDir := map[string][][]string{}
	var dirs []string
	for _, pattern := range patterns {
		parts := strings.Split(pattern, "/")
		for _, part := range parts {
			if _, err := path.Match(part, ""); err != nil {
				return fmt.Errorf("input %s: %q is not a valid pattern: %w", arg, part, err)
			}
		}
		fixed := 0
		for fixed < len(parts)-1 && !hasMeta(parts[fixed]) {
			fixed++
		}
		dir := strings.Join(parts[:fixed], "/")
		if byDir[dir] == nil {
			dirs = append(dirs, dir)
		}
		byDir[dir] = append(byDir[dir], parts)
	}
	// Rels are relative to the folder before the first wildcard of the whole pattern.
	problems := len(d.problems)
	whole := p.Key[:strings.IndexAny(p.Key, "*?[{")]
	matched := false
	for _, dir := range dirs {
		from := p
		from.Key = dir
		err := d.list(from, func(info store.Info, f place.Place) {
			key := strings.Split(f.Key, "/")
			if !slices.ContainsFunc(byDir[dir], func(parts []string) bool { return matchURL(parts, key) }) {
				return
			}
			matched = true
			base := f
			base.Key = strings.TrimSuffix(whole[:strings.LastIndexByte(whole, '/')+1], "/")
			d.addURL(info, base)
		})
		if err != nil {
			return fmt.Errorf("input %w", err)
		}
	}
	if len(d.problems) > problems && !slices.ContainsFunc(d.found, func(f found) bool { return f.arg == d.arg }) {
		return fmt.Errorf("input %s: the pattern matches no usable file (%s: %w)", arg, d.problems[problems].Path,
			d.problems[problems].Err)
	}
	if !matched {
		return fmt.Errorf("input %s: the pattern matches no parquet file; "+
			"check the path (** matches any number of folders)", arg)
	}
	return nil
}

// matchURL reports whether a file's key is matched: by the pattern itself, or by
// being a parquet file below a folder that is.
func matchURL(pattern, key []string) bool {
	if len(pattern) == 0 {
		// The key's folder was matched: all parquet files below it.
		return len(key) > 0 && strings.HasSuffix(key[len(key)-1], parquetSuffix) && !slices.ContainsFunc(key, hidden)
	}
	if len(key) == 0 {
		return false
	}
	part := pattern[0]
	if part == "**" {
		if matchURL(pattern[1:], key) {
			return true
		}
		return len(key) > 1 && !hidden(key[0]) && matchURL(pattern, key[1:])
	}
	if ok, _ := path.Match(part, key[0]); !ok || hidden(key[0]) && !hidden(part) {
		return false
	}
	if len(pattern) == 1 && len(key) == 1 {
		return !wildSuffix(part) || strings.HasSuffix(key[0], parquetSuffix)
	}
	return matchURL(pattern[1:], key[1:])
}

// addURL takes a file whose Rel is relative to base.
func (d *discovery) addURL(info store.Info, base place.Place) {
	if d.seen[info.Name] {
		return
	}
	p, err := place.Parse(info.Name)
	if err != nil {
		d.problem(info.Name, err)
		return
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(p.Key, base.Key), "/")
	switch err := score.ValidRel(rel); {
	case err != nil:
		d.problem(info.Name, fmt.Errorf("%w; rename it", err))
		return
	case info.Version == "":
		d.problem(info.Name, errors.New("the server reports no version (ETag), so a change would go unnoticed: "+
			"copy the file to a bucket"))
		return
	}
	name := path.Base(base.Key)
	if base.Key == "" {
		name = path.Base(base.Host)
	}
	d.seen[info.Name] = true
	d.found = append(d.found, found{score.Input{Path: info.Name, Rel: rel, Size: info.Size, Version: info.Version},
		d.arg, name})
}
