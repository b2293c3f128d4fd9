package curate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"surprisal/internal/quantile"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/shard/pq"
	"surprisal/internal/usage"
)

// Document is one row with its score.
type Document struct {
	File  *File
	Row   int64
	ID    string // of the column id, if there is one
	Text  string // the scored text column; empty where ids were scored
	IDs   []int32
	Null  bool
	Score score.Score // with TokenIDs and TokenNLL where OUT has them
}

// Percentiles computes percentiles of a column of the scores, of all rows; NaN
// where no row has a value. They are exact.
func (c *Corpus) Percentiles(ctx context.Context, column string, p []float64) ([]float64, error) {
	kinds, err := c.Kinds(ctx, []string{column})
	if err != nil {
		return nil, err
	}
	byGroup, err := c.thresholds(ctx, newGroups(nil), percentiles(column, p), kinds, quantile.Held)
	if err != nil {
		return nil, fmt.Errorf("percentiles of %s: %w", column, err)
	}
	all := make([]float64, len(p))
	for i := range p {
		if all[i] = math.NaN(); len(byGroup[i]) > 0 {
			all[i] = byGroup[i][0]
		}
	}
	return all, nil
}

// Find gives the file whose Rel, path or base name is name.
func (c *Corpus) Find(name string) (*File, error) {
	var found *File
	for i := range c.Files {
		f := &c.Files[i]
		if f.Input.Rel == name || f.Input.Path == name {
			return f, nil
		}
		if baseName(f.Input.Rel) == baseName(name) {
			if found != nil {
				return nil, usage.Errorf("%s matches %s and %s: give the whole path", name, found.Input.Rel,
					f.Input.Rel)
			}
			found = f
		}
	}
	if found == nil {
		return nil, usage.Errorf("%s has no scores of a file %s", c.Dir, name)
	}
	return found, nil
}

// Document reads one row.
func (c *Corpus) Document(ctx context.Context, f *File, row int64) (*Document, error) {
	if row < 0 || row >= f.Rows {
		return nil, usage.Errorf("%s has rows 0 to %d, not %d", f.Input.Rel, f.Rows-1, row)
	}
	d := &Document{File: f, Row: row}
	var at *Range
	for i := range f.Scores {
		if r := &f.Scores[i]; r.First <= row && row <= r.Last {
			at = r
		}
	}
	if at == nil {
		return nil, usage.Errorf("row %d of %s has no score yet", row, f.Input.Rel)
	}
	if err := c.readScore(ctx, d, at); err != nil {
		return nil, err
	}
	return d, c.readText(ctx, d, at)
}

func (c *Corpus) readText(ctx context.Context, d *Document, at *Range) (err error) {
	job := score.NewJob(c.Manifest, d.File.Input, at.First, at.Last)
	job.Offset = at.Offset
	job.Options.Keep = []string{}
	row, err := shard.ReadRow(ctx, job, d.Row)
	if err != nil {
		return err
	}
	d.Text, d.IDs, d.Null = row.Text, row.IDs, row.Null
	return nil
}

func (c *Corpus) readScore(ctx context.Context, d *Document, at *Range) (err error) {
	one := File{Input: d.File.Input, Rows: d.File.Rows, Scores: []Range{*at}}
	o, err := c.open(ctx, &one, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	s := o.scores[0]
	var v pq.Values
	read := func(name string) error {
		col, err := s.Table.Scalar(ctx, name, d.Row-s.First)
		if err != nil {
			return err
		}
		err = col.Read(&v, 1)
		if err == nil && v.Len() != 1 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	d.Score = score.Score{Row: d.Row, Bytes: -1}
	for name, set := range map[string]func(){
		"n_tokens":  func() { d.Score.Tokens = firstInt(&v) },
		"n_top1":    func() { d.Score.Top1 = firstInt(&v) },
		"n_bytes":   func() { d.Score.Bytes = firstInt(&v) },
		"truncated": func() { d.Score.Truncated = firstInt(&v) != 0 },
		"sum_nll": func() {
			if v.Kind == pq.Float {
				d.Score.SumNLL = v.Floats[0]
			}
		},
		"error": func() {
			if v.Kind == pq.Text {
				d.Score.Error = string(v.Texts[0])
			}
		},
	} {
		if err := read(name); err != nil {
			return err
		}
		if !v.Null[0] {
			set()
		}
	}
	if s.Table.Has("id") {
		if err := read("id"); err == nil && v.Kind == pq.Text && !v.Null[0] {
			d.ID = string(v.Texts[0])
		}
	}
	d.Score.TokenIDs, d.Score.TokenNLL, err = shard.TokenScores(ctx, s.Table, d.Row-s.First)
	return err
}

func firstInt(v *pq.Values) int64 {
	if len(v.Ints) == 0 {
		return 0
	}
	return v.Ints[0]
}

// CopyOf writes rows of the input to a file in dir, with all columns, as the kind
// of file that it is, and gives its name, which begins with name.
func (c *Corpus) CopyOf(ctx context.Context, f *File, rows []int64, dir, name string) (string, error) {
	set := &pq.Bitmap{}
	for _, r := range rows {
		set.Set(r)
	}
	d, err := outdir.OpenDest(ctx, dir)
	if err != nil {
		return "", err
	}
	o := &opened{}
	if err = o.openInput(ctx, f); err == nil {
		if o.lines != nil {
			name += jsonl.Suffix(f.Input.Rel)
			err = d.CopyLines(ctx, name, f.Rows, jsonl.Copy{In: o.lines, Rows: set})
		} else {
			name += ".parquet"
			err = d.CopyRows(ctx, name, pq.Copy{In: o.input, Rows: set, Slots: make(chan struct{}, 1)})
		}
		err = errors.Join(err, o.close())
	}
	return name, errors.Join(err, d.Close())
}

// DocumentAt reads the document that FILE:N names: an input file and a row of it,
// counted from 0.
func (c *Corpus) DocumentAt(ctx context.Context, name string) (*Document, error) {
	i := strings.LastIndexByte(name, ':')
	if i < 1 {
		return nil, usage.Errorf("--row %q is not FILE:N", name)
	}
	row, err := strconv.ParseInt(name[i+1:], 10, 64)
	if err != nil {
		return nil, usage.Errorf("--row %q is not FILE:N: %q is not a row number", name, name[i+1:])
	}
	file, err := c.Find(name[:i])
	if err != nil {
		return nil, err
	}
	return c.Document(ctx, file, row)
}
