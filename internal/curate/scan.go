package curate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"surprisal/internal/shard/pq"
)

// How many rows are looked at together: fewer where there are texts, which may
// be long.
const (
	batchRows     = 2048
	batchRowsText = 256
)

// Scan reads columns of the rows of a file that have scores, in order; v is
// valid during the call. Ranges are read as far as they are committed.
func (c *Corpus) Scan(ctx context.Context, f *File, names []string, kinds map[string]pq.Kind, do func(first int64,
	n int, v []*pq.Values) error) error {
	input := &opened{} // stays open from range to range
	for _, r := range f.Scores {
		one := File{Input: f.Input, Rows: f.Rows, Scores: []Range{r}}
		o, err := c.open(ctx, &one, false)
		if err != nil {
			return errors.Join(err, input.close())
		}
		o.input, o.lines = input.input, input.lines
		err = c.scanRange(ctx, f, o, names, kinds, do)
		input.input, input.lines = o.input, o.lines
		o.input, o.lines = nil, nil
		if err = errors.Join(err, o.close()); err != nil {
			return errors.Join(err, input.close())
		}
	}
	return input.close()
}

// scanned is columns that are read together: of score files and parquet inputs
// each by itself, of JSON lines all at once.
type scanned struct {
	vals   []*pq.Values // of all columns, as they were named
	names  []string
	cols   []*pq.Scalar // nil for a field of lines
	fields []string
	kinds  []pq.Kind    // of fields
	into   []*pq.Values // of fields
	text   bool         // there are texts, which may be long
}

// start has the columns begin at the first row of o's score file.
func (o *opened) start(ctx context.Context, f *File, names []string, kinds map[string]pq.Kind) (*scanned, error) {
	s := &scanned{names: names, cols: make([]*pq.Scalar, len(names)), vals: make([]*pq.Values, len(names))}
	for i, name := range names {
		s.vals[i] = &pq.Values{}
		from := o.scores[0].Table
		first := int64(0)
		if !from.Has(name) {
			if !o.hasInput() {
				if err := o.openInput(ctx, f); err != nil {
					return nil, err
				}
			}
			from, first = o.input, o.scores[0].First
		}
		var got pq.Kind
		var err error
		if from == nil {
			if got, _, err = o.lines.Kind(name); err != nil {
				return nil, err
			}
			got = cmp.Or(got, kinds[name], pq.Text) // where it has no value at first, what it is elsewhere
			s.fields, s.kinds, s.into = append(s.fields, name), append(s.kinds, got), append(s.into, s.vals[i])
		} else {
			if s.cols[i], err = from.Scalar(ctx, name, first); err != nil {
				return nil, err
			}
			got = s.cols[i].Kind()
		}
		if name == "n_tokens" && got != pq.Int {
			return nil, fmt.Errorf("scores of %s: %w: n_tokens is of type %s", f.Input.Path, pq.ErrCorrupt, got)
		}
		if want := kinds[name]; want != 0 && want != got && (!numeric(want) || !numeric(got)) {
			return nil, fmt.Errorf("%s: %w: column %q is of type %s, in other files %s", f.Input.Path, pq.ErrColumn,
				name, got,
				want)
		}
		s.text = s.text || got == pq.Text
	}
	return s, nil
}

func (s *scanned) read(o *opened, f *File, row int64, n int) error {
	for i, col := range s.cols {
		if col == nil {
			continue
		}
		if err := col.Read(s.vals[i], n); err != nil && err != io.EOF {
			return err
		}
		if s.vals[i].Len() != n {
			return fmt.Errorf("%s: %w: column %q ends before row %d", f.Input.Path, pq.ErrCorrupt, s.names[i],
				row+int64(n))
		}
	}
	if len(s.fields) == 0 {
		return nil
	}
	return o.lines.Read(s.fields, s.kinds, row, n, s.into)
}

func (c *Corpus) scanRange(ctx context.Context, f *File, o *opened, names []string, kinds map[string]pq.Kind,
	do func(int64, int, []*pq.Values) error) error {
	s, err := o.start(ctx, f, names, kinds)
	if err != nil {
		return err
	}
	batch := int64(batchRows)
	if s.text {
		batch = batchRowsText
	}
	first, last := o.scores[0].First, o.scores[0].Last
	for row := first; row <= last; {
		n := int(min(batch, last-row+1))
		if err := s.read(o, f, row, n); err != nil {
			return err
		}
		if err := do(row, n, s.vals); err != nil {
			return err
		}
		row += int64(n)
	}
	return nil
}

func numeric(k pq.Kind) bool { return k == pq.Int || k == pq.Float }
