package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// checker holds the promises.
type checker struct {
	out                                                              string
	m                                                                *manifest
	r                                                                *result
	inputs, every, order, kept, metadata, sums, digests, strays, end *promise
	documents, tokens                                                int64
}

// check looks at all of out.
func check(out, sameAs, deadFile string) (*result, error) {
	m, err := readManifest(out)
	if err != nil {
		return nil, err
	}
	dead, err := readDead(deadFile)
	if err != nil {
		return nil, err
	}
	r := &result{Out: out, Run: m.Run}
	c := &checker{
		out: out, m: m, r: r,
		inputs:   r.promise("inputs are those that were planned", "files"),
		every:    r.promise("every job is committed or dead, none both", "jobs"),
		order:    r.promise("every row once and in order", "rows"),
		kept:     r.promise("kept columns are the input's", "rows"),
		metadata: r.promise("metadata names run, job, rows and options", "files"),
		sums:     r.promise("sums, perplexities and counts agree", "rows"),
		digests:  r.promise("digests are of what is there", "files"),
		strays:   r.promise("nothing else is in the output folder", "files"),
		end:      r.promise("_SUCCESS if and only if all is committed", "files"),
	}
	planned := map[string]bool{}
	committed := 0
	list := m.jobs()
	for _, j := range list {
		planned[j.output] = true
		c.every.Checked++
		_, err := os.Lstat(c.path(j.output))
		switch {
		case err == nil && dead[j.id]:
			c.every.breaks("%s: its job %s is dead too", j.output, j.id)
		case errors.Is(err, fs.ErrNotExist) && !dead[j.id]:
			c.every.breaks("%s is missing, and its job %s is not dead", j.output, j.id)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		if err == nil {
			committed++
		}
		delete(dead, j.id)
	}
	for id := range dead {
		c.every.breaks("dead job %s is not in the manifest", id)
	}
	failed := 0
	for i := range m.Files {
		if m.Files[i].Error != "" {
			failed++
			continue
		}
		c.file(i, list)
	}
	if err := c.walk(planned); err != nil {
		return nil, err
	}
	if err := c.success(committed == len(list) && failed == 0); err != nil {
		return nil, err
	}
	if sameAs != "" {
		if err := c.sameAs(sameAs, list); err != nil {
			return nil, err
		}
	}
	for _, p := range r.Promises {
		r.Violations += len(p.Broken)
	}
	return r, nil
}

func (c *checker) path(output string) string { return filepath.Join(c.out, filepath.FromSlash(output)) }

// file checks an input and the score files of its jobs.
func (c *checker) file(i int, list []job) {
	f := c.m.Files[i]
	c.inputs.Checked++
	var in *table
	var text *lines
	rows := int64(-1)
	st, err := os.Stat(f.Input.Path)
	switch version := ""; {
	case err != nil:
		c.inputs.breaks("%s: %v", f.Input.Path, err)
	default:
		version = fmt.Sprintf("%d-%d", st.Size(), st.ModTime().UnixNano())
		if version != f.Input.Version || st.Size() != f.Input.Size {
			c.inputs.breaks("%s is %s now, planned was %s (size-mtime)", f.Input.Path, version, f.Input.Version)
			break
		}
		if isLines(f.Input.Rel) {
			text = &lines{path: f.Input.Path}
			defer text.Close()
			rows, err = text.count()
		} else if in, err = openTable(f.Input.Path); err == nil {
			defer in.Close()
			rows = in.NumRows()
		}
		if err != nil {
			c.inputs.breaks("%s: %v", f.Input.Path, err)
			in, text = nil, nil
			break
		}
		if rows != f.Rows {
			c.inputs.breaks("%s has %d rows, planned were %d", f.Input.Path, rows, f.Rows)
		}
	}
	for _, j := range list {
		if j.file != i {
			continue
		}
		if _, err := os.Lstat(c.path(j.output)); err == nil {
			c.scores(j, in, text)
		}
	}
}

// own are the columns that a score file has of its own.
var own = []string{"row", "n_tokens", "n_bytes", "sum_nll", "perplexity", "bits_per_byte", "n_top1", "truncated",
	"error"}

// own are the columns that a score file of this run has of its own.
func (m *manifest) own() []string {
	if m.Options.TargetColumn != "" {
		return append(slices.Clone(own), "n_context_tokens", "greedy")
	}
	return own
}

// totals are what the metadata says of all rows together.
type totals struct {
	documents, failed, truncated, tokens, bytes, top1 int64
	sum                                               float64
}

// scores checks one score file beside its input: a table, lines, or neither.
func (c *checker) scores(j job, in *table, text *lines) {
	t, err := openTable(c.path(j.output))
	if err != nil {
		c.order.breaks("%s: %v", j.output, err)
		return
	}
	defer t.Close()
	meta := c.describe(j, t)
	at := map[string]int{}
	for i, name := range t.columns {
		at[name] = i
	}
	for _, name := range c.m.own() {
		if _, ok := at[name]; !ok {
			c.metadata.breaks("%s has no column %s", j.output, name)
			return
		}
	}
	d := newDigest(c.m.Options.TargetColumn != "")
	var sum totals
	next := j.first
	err = t.rows(0, t.NumRows()-1, func(_ int64, values []parquet.Value) error {
		one := readRow(values, at, c.m.Options.TargetColumn != "")
		if one.row != next {
			return fmt.Errorf("row %d where %d belongs", one.row, next)
		}
		next++
		c.order.Checked++
		c.sums.Checked++
		if wrong := one.check(c.m.Options.PerToken); wrong != "" {
			c.sums.breaks("%s row %d: %s", j.output, one.row, wrong)
		}
		d.add(&one)
		sum.add(&one)
		return nil
	})
	switch {
	case err != nil:
		c.order.breaks("%s: %v", j.output, err)
		return
	case next != j.last+1:
		c.order.breaks("%s: the rows end at %d, not at %d", j.output, next-1, j.last)
		return
	}
	c.documents, c.tokens = c.documents+sum.documents, c.tokens+sum.tokens
	if sum != meta {
		c.sums.breaks("%s: the rows come to %+v, its metadata says %+v", j.output, sum, meta)
	}
	c.digests.Checked++
	if got, want := d.String(), lookup(t, "digest"); got != want {
		c.digests.breaks("%s: the scores' digest is %s, its metadata says %s", j.output, got, want)
	}
	if wrong := wholeDigest(c.path(j.output), lookup(t, "file")); wrong != "" {
		c.digests.breaks("%s: %s", j.output, wrong)
	}
	if in != nil {
		c.compareKept(j, t, in)
	}
	if text != nil {
		c.compareLines(j, t, text)
	}
}

func lookup(t *table, key string) string {
	v, _ := t.Lookup("surprisal." + key)
	return v
}

// describe checks the metadata and gives its totals.
func (c *checker) describe(j job, t *table) totals {
	c.metadata.Checked++
	in := c.m.Files[j.file].Input
	for key, want := range map[string]string{
		"run": c.m.Run, "job": j.id, "config.digest": c.m.ConfigDigest, "input.path": in.Path,
		"input.version": in.Version,
		"input.rel":     in.Rel, "rows.first": fmt.Sprint(j.first), "rows.last": fmt.Sprint(j.last),
	} {
		if got := lookup(t, key); got != want {
			c.metadata.breaks("%s: %s is %q, want %q", j.output, key, got, want)
		}
	}
	number := func(key string) int64 {
		n, err := strconv.ParseInt(lookup(t, key), 10, 64)
		if err != nil {
			c.metadata.breaks("%s: %s: %v", j.output, key, err)
		}
		return n
	}
	sum, err := strconv.ParseFloat(lookup(t, "total.sum_nll"), 64)
	if err != nil {
		c.metadata.breaks("%s: total.sum_nll: %v", j.output, err)
	}
	return totals{
		documents: number("total.documents"), failed: number("total.failed"), truncated: number("total.truncated"),
		tokens: number("total.tokens"), bytes: number("total.bytes"), top1: number("total.top1"), sum: sum,
	}
}

// walk looks for what does not belong into out.
func (c *checker) walk(planned map[string]bool) error {
	return filepath.WalkDir(c.out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(c.out, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		c.strays.Checked++
		switch base := d.Name(); {
		case planned[rel], rel == "_manifest.json", rel == "_SUCCESS", strings.HasPrefix(rel, ".surprisal"):
		case strings.HasPrefix(base, ".rows-") && strings.HasSuffix(base, ".tmp"):
			c.strays.breaks("%s is a temporary that was left", rel)
		default:
			c.strays.breaks("%s is of no job of the manifest", rel)
		}
		return nil
	})
}

// success checks _SUCCESS.
func (c *checker) success(complete bool) error {
	b, err := os.ReadFile(filepath.Join(c.out, "_SUCCESS"))
	c.end.Checked++
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if complete {
			c.end.breaks("everything is committed, and there is no _SUCCESS")
		}
		return nil
	case err != nil:
		return err
	case !complete:
		c.end.breaks("there is a _SUCCESS, and not everything is committed")
		return nil
	}
	var s struct {
		Run       string `json:"run"`
		Config    string `json:"config_digest"`
		Documents int64  `json:"documents"`
		Tokens    int64  `json:"tokens"`
	}
	if err := json.Unmarshal(b, &s); err != nil {
		c.end.breaks("_SUCCESS: %v", err)
	} else if s.Run != c.m.Run || s.Config != c.m.ConfigDigest || s.Documents != c.documents || s.Tokens != c.tokens {
		c.end.breaks("_SUCCESS says run %s, %d documents, %d tokens; the files say run %s, %d and %d", s.Run,
			s.Documents,
			s.Tokens,
			c.m.Run, c.documents, c.tokens)
	}
	return nil
}
