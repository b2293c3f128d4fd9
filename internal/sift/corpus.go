package sift

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"surprisal/internal/dispatch"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/store"
)

// Corpus is a run's committed scores with the inputs they are of.
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
	Job         string
}

func usage(format string, a ...any) error {
	return &dispatch.UsageError{Err: fmt.Errorf(format, a...)}
}

// Open reads what OUT holds. An OUT that lacks rows is a UsageError unless
// partial is set.
func Open(ctx context.Context, out string, partial bool) (*Corpus, error) {
	dir, err := store.Resolve(out)
	if err != nil {
		return nil, usage("%w", err) // out may hold a secret
	}
	m, err := shard.ReadManifest(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage("%s has no %s: name a folder that dispatcher run or submit wrote scores to", out, score.ManifestName)
	}
	if err != nil {
		return nil, usage("%s: %w", out, err)
	}
	m.Out = dir // it may have been moved
	done, err := dispatch.Reconcile(ctx, m)
	if err != nil {
		return nil, err
	}
	c := &Corpus{Dir: dir, Manifest: m, Totals: done.Totals}
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
			f.Scores = append(f.Scores, Range{store.Join(dir, j.Output), j.First, j.Last, j.ID})
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
		return nil, usage("%s is not complete: %s: run it to its end, or go on without them with --partial", out, what)
	}
	return c, nil
}

// opened is one file's tables.
type opened struct {
	input  *shard.Table
	scores []shard.ScoreRange
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
		if o.input, err = shard.OpenInput(ctx, f.Input); err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, shard.ErrInputChanged) {
				err = usage("%w", err)
			}
			return o, err
		}
		if o.input.Rows() != f.Rows {
			return o, fmt.Errorf("%s: %w: %d rows, the manifest has %d", f.Input.Path, shard.ErrInputChanged, o.input.Rows(), f.Rows)
		}
	}
	for _, r := range f.Scores {
		t, err := shard.OpenScores(ctx, r.Path)
		if err != nil {
			return o, err
		}
		o.scores = append(o.scores, shard.ScoreRange{Table: t, First: r.First, Last: r.Last})
		if t.Rows() != r.Last-r.First+1 {
			return o, fmt.Errorf("%s: %w: %d rows for rows %d to %d", r.Path, shard.ErrCorrupt, t.Rows(), r.First, r.Last)
		}
	}
	return o, nil
}

func (o *opened) close() error {
	var errs []error
	if o.input != nil {
		errs = append(errs, o.input.Close())
	}
	for _, s := range o.scores {
		errs = append(errs, s.Table.Close())
	}
	return errors.Join(errs...)
}

// Kinds finds columns in the first file: those of the score files first, then
// the input's. A column that isn't there, or can't be used, is a UsageError.
func (c *Corpus) Kinds(ctx context.Context, names []string) (map[string]shard.Kind, error) {
	kinds := map[string]shard.Kind{}
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
			s, err := c.column(ctx, f, o, &o.scores[0], name)
			if err != nil {
				return nil, errors.Join(columnError(o, name, err), o.close())
			}
			kinds[name] = s.Kind()
		}
		return kinds, o.close()
	}
	for _, name := range names { // there is nothing to read
		kinds[name] = shard.Float
	}
	return kinds, nil
}

// columnError is one line for a person's mistake.
func columnError(o *opened, name string, err error) error {
	if !errors.Is(err, shard.ErrColumn) {
		return err
	}
	if o.input == nil || o.scores[0].Table.Has(name) || o.input.Has(name) {
		return usage("%w", err)
	}
	return usage("there is no column %q: the scores have %s; the input has %s", name, o.scores[0].Table.Describe(), o.input.Describe())
}

// column starts to read a column at a score file's first row; it opens the
// input when the scores don't have it.
func (c *Corpus) column(ctx context.Context, f *File, o *opened, s *shard.ScoreRange, name string) (*shard.Scalar, error) {
	if s.Table.Has(name) {
		return s.Table.Scalar(ctx, name, 0)
	}
	if o.input == nil {
		in, err := c.open(ctx, &File{Input: f.Input, Rows: f.Rows}, true)
		if err != nil {
			return nil, err
		}
		o.input = in.input
	}
	return o.input.Scalar(ctx, name, s.First)
}

// How many rows are looked at together: fewer where there are texts, which may
// be long.
const (
	batchRows     = 2048
	batchRowsText = 256
)

// Scan reads columns of the rows of a file that have scores, in order; v is
// valid during the call. Ranges are read as far as they are committed.
func (c *Corpus) Scan(ctx context.Context, f *File, names []string, kinds map[string]shard.Kind, do func(first int64, n int, v []*shard.Values) error) error {
	var input *shard.Table
	for _, r := range f.Scores {
		one := File{Input: f.Input, Rows: f.Rows, Scores: []Range{r}}
		o, err := c.open(ctx, &one, false)
		if err != nil {
			return err
		}
		o.input = input
		err = c.scanRange(ctx, f, o, names, kinds, do)
		input, o.input = o.input, nil
		if err = errors.Join(err, o.close()); err != nil {
			if input != nil {
				err = errors.Join(err, input.Close())
			}
			return err
		}
	}
	if input != nil {
		return input.Close()
	}
	return nil
}

func (c *Corpus) scanRange(ctx context.Context, f *File, o *opened, names []string, kinds map[string]shard.Kind, do func(int64, int, []*shard.Values) error) error {
	s := &o.scores[0]
	cols := make([]*shard.Scalar, len(names))
	vals := make([]*shard.Values, len(names))
	for i, name := range names {
		var err error
		if cols[i], err = c.column(ctx, f, o, s, name); err != nil {
			return err
		}
		vals[i] = &shard.Values{}
		if name == "n_tokens" && cols[i].Kind() != shard.Int {
			return fmt.Errorf("scores of %s: %w: n_tokens is of type %s", f.Input.Path, shard.ErrCorrupt, cols[i].Kind())
		}
		if want, got := kinds[name], cols[i].Kind(); want != 0 && want != got && (!numeric(want) || !numeric(got)) {
			return fmt.Errorf("%s: %w: column %q is of type %s, in other files %s", f.Input.Path, shard.ErrColumn, name, got, want)
		}
	}
	batch := int64(batchRows)
	for _, col := range cols {
		if col.Kind() == shard.Text {
			batch = batchRowsText
		}
	}
	for row := s.First; row <= s.Last; {
		n := int(min(batch, s.Last-row+1))
		for i, col := range cols {
			if err := col.Read(vals[i], n); err != nil && err != io.EOF {
				return err
			}
			if vals[i].Len() != n {
				return fmt.Errorf("%s: %w: column %q ends before row %d", f.Input.Path, shard.ErrCorrupt, names[i], row+int64(n))
			}
		}
		if err := do(row, n, vals); err != nil {
			return err
		}
		row += int64(n)
	}
	return nil
}

func numeric(k shard.Kind) bool { return k == shard.Int || k == shard.Float }

// union lists names without repetition.
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
