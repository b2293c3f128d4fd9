package discover

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

func hasMeta(s string) bool { return strings.ContainsAny(s, "*?[{") }

// glob takes what a pattern matches. abs is the pattern made absolute.
func (d *discovery) glob(arg, abs string) error {
	patterns, err := expandBraces(filepath.ToSlash(abs))
	if err != nil {
		return fmt.Errorf("input %s: %w", arg, err)
	}
	before, problems := len(d.seen), len(d.problems)
	for _, p := range patterns {
		parts := strings.Split(p, "/")
		fixed := 0
		for fixed < len(parts)-1 && !hasMeta(parts[fixed]) {
			fixed++
		}
		for _, part := range parts[fixed:] {
			if _, err := path.Match(part, ""); err != nil {
				return fmt.Errorf("input %s: %q is not a valid pattern: %w", arg, part, err)
			}
		}
		base := filepath.FromSlash(strings.Join(parts[:fixed], "/"))
		if base == "" {
			base = string(filepath.Separator)
		}
		d.match(base, globBase(abs, base), parts[fixed:], 0)
	}
	if len(d.seen) > before || d.matchedBefore(patterns) {
		return nil
	}
	if len(d.problems) > problems {
		p := d.problems[problems]
		return fmt.Errorf("input %s: the pattern matches no readable file (%s: %w)", arg, p.Path, p.Err)
	}
	return fmt.Errorf("input %s: the pattern matches no parquet file; "+
		"check the path (** matches any number of folders)", arg)
}

// globBase is the folder that Rels are relative to: the one before the first
// wildcard of the whole pattern, of which braces may have made several.
func globBase(abs, base string) string {
	i := strings.IndexAny(abs, "*?[{")
	if i < 0 {
		return base
	}
	dir := filepath.Dir(abs[:i] + "x")
	if under(base, dir) {
		return dir
	}
	return base
}

// matchedBefore reports whether earlier arguments took all that the pattern names.
func (d *discovery) matchedBefore(patterns []string) bool {
	again := &discovery{exclude: d.exclude, seen: map[string]bool{}}
	for _, p := range patterns {
		parts := strings.Split(p, "/")
		again.match(string(filepath.Separator), string(filepath.Separator), parts[1:], 0)
	}
	return len(again.seen) > 0
}

const maxGlobDepth = 128 // folders; links may lead in circles

// match takes what parts match below dir.
func (d *discovery) match(dir, base string, parts []string, depth int) {
	if d.excluded(dir) || depth > maxGlobDepth {
		return
	}
	part, last := parts[0], len(parts) == 1
	if part == "**" {
		if last {
			d.walk(dir, base, nil)
			return
		}
		d.match(dir, base, parts[1:], depth+1) // no folder at all
	} else if !hasMeta(part) {
		d.matched(filepath.Join(dir, part), base, parts, depth)
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) && !isFile(dir) {
			d.problem(dir, err)
		}
		return
	}
	for _, e := range entries {
		name := e.Name()
		if hidden(name) && !hidden(part) {
			continue
		}
		p := filepath.Join(dir, name)
		if part == "**" {
			// A link to a folder is not followed here: ** would lead in circles.
			if e.IsDir() {
				d.match(p, base, parts, depth+1)
			}
			continue
		}
		if ok, _ := path.Match(part, name); !ok {
			continue
		}
		if last && wildSuffix(part) && !e.IsDir() && !strings.HasSuffix(name, parquetSuffix) {
			if st, err := os.Stat(p); err != nil || !st.IsDir() {
				continue
			}
		}
		d.matched(p, base, parts, depth)
	}
}

// wildSuffix reports whether a pattern leaves a file's suffix open.
func wildSuffix(part string) bool { return strings.HasSuffix(part, "*") }

func isFile(p string) bool {
	st, err := os.Stat(p)
	return err == nil && !st.IsDir()
}

// matched goes on with what parts[0] matched.
func (d *discovery) matched(p, base string, parts []string, depth int) {
	if d.excluded(p) {
		return
	}
	st, err := os.Stat(p)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) || len(parts) == 1 && hasMeta(parts[0]) {
			d.problem(p, err)
		}
		return
	}
	switch {
	case len(parts) > 1:
		if st.IsDir() {
			d.match(p, base, parts[1:], depth+1)
		}
	case st.IsDir():
		d.walk(p, base, nil)
	case st.Mode().IsRegular():
		d.add(p, base, st)
	default:
		d.problem(p, errors.New("neither a file nor a folder"))
	}
}

const maxBraces = 1000

// expandBraces turns a{b,c}d into abd and acd.
func expandBraces(p string) ([]string, error) {
	open := strings.IndexByte(p, '{')
	if open < 0 {
		return []string{p}, nil
	}
	depth, from := 0, open+1
	var choices []string
	for i := open; i < len(p); i++ {
		switch p[i] {
		case '{':
			depth++
		case ',':
			if depth == 1 {
				choices = append(choices, p[from:i])
				from = i + 1
			}
		case '}':
			if depth--; depth > 0 {
				continue
			}
			choices = append(choices, p[from:i])
			var all []string
			for _, c := range choices {
				more, err := expandBraces(p[:open] + c + p[i+1:])
				if err != nil {
					return nil, err
				}
				if all = append(all, more...); len(all) > maxBraces {
					return nil, fmt.Errorf("its braces make more than %d patterns", maxBraces)
				}
			}
			return all, nil
		}
	}
	return nil, errors.New("a brace is not closed")
}
