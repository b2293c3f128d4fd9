package curate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"surprisal/internal/dispatch"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/shard/pq"
	"surprisal/internal/usage"
)

// Corpus is a run's committed scores with their inputs.
type Corpus struct {
	Dir      string // OUT, absolute
	Manifest *score.Manifest
	Files    []File // those of the manifest that have rows, in order of Rel
	Totals   shard.Totals
	// What is not there: rows without a score file yet, inputs that failed.
	MissingRows int64
	FailedFiles []string
}

// File is an input and its score files.
type File struct {
	Input  score.Input
	Rows   int64
	Scores []Range // committed, in order of rows
}

// Range is a score file and the rows of the input that it has.
type Range struct {
	Path        string
	First, Last int64
	Offset      int64 // byte of the input at which First begins, of a file of lines that is not compressed
	Job         string
}

// Open reads an output folder. One that lacks rows is a usage.Error unless partial is
// set.
func Open(ctx context.Context, out string, partial bool) (*Corpus, error) {
	m, err := outdir.ReadManifest(ctx, out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage.Errorf("%s has no %s: name an output folder of dispatcher run or submit", out,
			score.ManifestName)
	}
	if err != nil {
		return nil, usage.Errorf("%s: %w", out, err)
	}
	m.Out = out // it may have been moved
	done, err := dispatch.Reconcile(ctx, m)
	if err != nil {
		return nil, err
	}
	c := &Corpus{Dir: out, Manifest: m, Totals: done.Totals}
	for i := range m.Files {
		p := &m.Files[i]
		if p.Error != "" {
			c.FailedFiles = append(c.FailedFiles, p.Input.Rel)
			continue
		}
		f := File{Input: p.Input, Rows: p.Rows}
		for _, j := range m.FileJobs(i) {
			if !done.Jobs[j.ID] {
				c.MissingRows += j.Rows()
				continue
			}
			f.Scores = append(f.Scores, Range{place.Join(out, j.Output), j.First, j.Last, j.Offset, j.ID})
		}
		if p.Rows > 0 {
			c.Files = append(c.Files, f)
		}
	}
	if !partial && (c.MissingRows > 0 || len(c.FailedFiles) > 0) {
		what := fmt.Sprintf("%d rows have no score yet", c.MissingRows)
		if n := len(c.FailedFiles); n > 0 {
			what += fmt.Sprintf(" and %d input files failed (%s)", n, c.FailedFiles[0])
		}
		return nil, usage.Errorf("%s is not complete: %s: complete the run, or leave them out with --partial", out,
			what)
	}
	return c, nil
}

// opened is one file's tables. Of input and lines, one is set if either is.
type opened struct {
	input  *pq.Table   // of parquet
	lines  *jsonl.File // of JSON lines
	scores []pq.Range
}

// open opens a file; input tells whether the input itself is needed.
func (c *Corpus) open(ctx context.Context, f *File, input bool) (o *opened, err error) {
	o = &opened{}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
			o = nil
		}
	}()
	if input {
		if err := o.openInput(ctx, f); err != nil {
			return o, err
		}
	}
	for _, r := range f.Scores {
		t, err := shard.OpenScores(ctx, r.Path)
		if err != nil {
			return o, err
		}
		o.scores = append(o.scores, pq.Range{Table: t, First: r.First, Last: r.Last})
		if t.Rows() != r.Last-r.First+1 {
			return o, fmt.Errorf("%s: %w: %d rows for rows %d to %d", r.Path, pq.ErrCorrupt, t.Rows(), r.First, r.Last)
		}
	}
	return o, nil
}

func (o *opened) openInput(ctx context.Context, f *File) (err error) {
	if jsonl.Is(f.Input.Rel) {
		o.lines, err = shard.OpenLines(ctx, f.Input)
	} else {
		o.input, err = shard.OpenInput(ctx, f.Input)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, shard.ErrInputChanged):
		return usage.Errorf("%w", err)
	case err == nil && o.input != nil && o.input.Rows() != f.Rows:
		return fmt.Errorf("%s: %w: %d rows, the manifest has %d", f.Input.Path, shard.ErrInputChanged, o.input.Rows(),
			f.Rows)
	}
	return err
}

func (o *opened) hasInput() bool { return o.input != nil || o.lines != nil }

func (o *opened) close() error {
	var errs []error
	if o.input != nil {
		errs = append(errs, o.input.Close())
	}
	if o.lines != nil {
		errs = append(errs, o.lines.Close())
	}
	for _, s := range o.scores {
		errs = append(errs, s.Table.Close())
	}
	return errors.Join(errs...)
}

// Kinds finds columns in the first file: those of the score files first, then
// the input's. A column that isn't there, or can't be used, is a usage.Error.
func (c *Corpus) Kinds(ctx context.Context, names []string) (map[string]pq.Kind, error) {
	kinds := map[string]pq.Kind{}
	for i := range c.Files {
		f := &c.Files[i]
		if len(f.Scores) == 0 {
			continue
		}
		one := *f
		one.Scores = f.Scores[:1]
		o, err := c.open(ctx, &one, false)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			kind, err := o.kind(ctx, f, name)
			if err != nil {
				return nil, errors.Join(columnError(o, name, err), o.close())
			}
			if kind == 0 { // only nulls, at first
				kind = pq.Text
			}
			kinds[name] = kind
		}
		return kinds, o.close()
	}
	for _, name := range names { // there is nothing to read
		kinds[name] = pq.Float
	}
	return kinds, nil
}

// kind is a column's, of the first score file or of the input, which is opened when
// the scores don't have it; 0 where it has only nulls as far as that is known.
func (o *opened) kind(ctx context.Context, f *File, name string) (pq.Kind, error) {
	from := o.scores[0].Table
	if !from.Has(name) {
		if !o.hasInput() {
			if err := o.openInput(ctx, f); err != nil {
				return 0, err
			}
		}
		if o.lines != nil {
			kind, known, err := o.lines.Kind(name)
			if err == nil && !known {
				err = pq.ErrColumn
			}
			return kind, err
		}
		from = o.input
	}
	s, err := from.Scalar(ctx, name, 0)
	if err != nil {
		return 0, err
	}
	return s.Kind(), nil
}

// columnError is the error of a column that cannot be used.
func columnError(o *opened, name string, err error) error {
	if !errors.Is(err, pq.ErrColumn) {
		return err
	}
	describe := ""
	switch {
	case o.scores[0].Table.Has(name), o.input != nil && o.input.HasField(name):
		return usage.Errorf("%w", err)
	case o.lines != nil:
		describe = o.lines.Describe()
	case o.input != nil:
		describe = o.input.Describe()
	default:
		return usage.Errorf("%w", err)
	}
	return usage.Errorf("there is no column %q: the scores have %s; the input has %s", name,
		o.scores[0].Table.Describe(),
		describe)
}

// union lists names without duplicates.
func union(lists ...[]string) []string {
	var all []string
	for _, l := range lists {
		for _, s := range l {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all
}

func baseName(p string) string { return p[strings.LastIndexByte(p, 0x2f)+1:] }

func indexOf(names []string, name string) int { return slices.Index(names, name) }
