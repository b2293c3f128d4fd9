package jsonl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"surprisal/internal/shard/pq"
)

// Copy says which lines of an input are copied to a file of their own, byte
// for byte unless fields are added.
type Copy struct {
	In   *File
	Rows *pq.Bitmap // nil: all
	// Beside are files that have columns of the same rows. Those named by Columns, in
	// this order, are added as fields behind the line's; every row that is copied must
	// be in one.
	Beside  []pq.Range
	Columns []string
	// Label adds a field of that name, null where Value is empty; none when the
	// name is empty. A line that is no object is copied without fields.
	Label string
	Value func(row int64) string
}

// Compress compresses what is written to w as the file's name says.
func Compress(w io.Writer, name string) (io.WriteCloser, error) {
	switch {
	case strings.HasSuffix(name, ".gz"):
		return gzip.NewWriterLevel(w, gzip.DefaultCompression)
	case strings.HasSuffix(name, ".zst"):
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	}
	return plainLines{w}, nil
}

type plainLines struct{ io.Writer }

func (plainLines) Close() error { return nil }

// WriteTo writes the lines of rows [0, rows).
func (c *Copy) WriteTo(ctx context.Context, w io.Writer, rows int64) error {
	err := pq.Recovered(func() error { return c.to(ctx, w, rows) })
	if err != nil {
		return fmt.Errorf("copy %s: %w", c.In.in.Path, err)
	}
	return nil
}

func (c *Copy) to(ctx context.Context, w io.Writer, rows int64) error {
	l := c.In
	var scores *scoreFields
	if len(c.Beside) > 0 {
		scores = &scoreFields{ctx: ctx, ranges: c.Beside, names: c.Columns}
	}
	for from := int64(0); ; {
		a, b := from, rows
		if c.Rows != nil {
			a, b = c.Rows.Run(from, rows)
		}
		if a == b {
			return nil
		}
		if err := l.to(a); err != nil {
			return err
		}
		for row := a; row < b; row++ {
			l.scan.over = w
			err := l.next(MaxLine)
			l.scan.over = nil
			if err != nil {
				return err
			}
			l.row++
			line := l.scan.line
			if l.scan.spilled {
				continue
			}
			if scores != nil || c.Label != "" {
				if line, err = c.withFields(line, l.scan.size, row, scores); err != nil {
					return err
				}
			}
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
		from = b
	}
}

// withFields adds the fields behind those of an object.
func (c *Copy) withFields(line []byte, size, row int64, scores *scoreFields) ([]byte, error) {
	o, problem := parseObject(line, size)
	if problem != "" {
		return line, nil
	}
	var add []byte
	if scores != nil {
		for _, name := range scores.names {
			if _, ok := o[name]; ok {
				return nil, fmt.Errorf("%w: line of row %d has a field %q of its own", pq.ErrColumn, row, name)
			}
		}
		var err error
		if add, err = scores.appendTo(add, row); err != nil {
			return nil, err
		}
	}
	if c.Label != "" {
		if _, ok := o[c.Label]; ok {
			return nil, fmt.Errorf("%w: line of row %d has a field %q of its own", pq.ErrColumn, row, c.Label)
		}
		add = appendKey(add, c.Label)
		if v := c.Value(row); v != "" {
			add = appendString(add, v)
		} else {
			add = append(add, "null"...)
		}
	}
	end := bytes.LastIndexByte(line, '}') // of an object that is valid
	out := append([]byte(nil), line[:end]...)
	if len(o) == 0 {
		add = add[1:] // its comma
	}
	return append(append(out, add...), line[end:]...), nil
}

func appendKey(b []byte, name string) []byte { return append(appendString(append(b, ','), name), ':') }

func appendString(b []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always marshal
	}
	return append(b, text...)
}

// scoreFields gives the own columns of score files, row by row, as JSON.
type scoreFields struct {
	ctx    context.Context // of the one call of WriteTo that it serves
	ranges []pq.Range
	names  []string
	cur    *pq.Range
	cols   []scoreField
	next   int64 // row that the columns are at
}

type scoreField struct {
	c        *pq.Column
	leaf     *pq.Leaf
	kind     pq.Kind
	unsigned bool
	list     bool
	single   bool // float32
}

// open starts to read the score file of a row.
func (s *scoreFields) open(row int64) error {
	r := pq.RangeOf(s.ranges, row)
	if r == nil {
		return fmt.Errorf("row %d has no score", row)
	}
	s.cur, s.cols, s.next = r, nil, row
	for _, name := range s.names {
		e, err := r.Table.Footer().Top(name)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Table.Path(), err)
		}
		f := scoreField{}
		if el := e.ListElement(); el != nil {
			e, f.list = el, true
		}
		if f.kind, f.unsigned = e.ValueKind(); f.kind == 0 || e.Leaf.MaxRep > 1 || !f.list && e.Leaf.MaxRep > 0 {
			return fmt.Errorf("%s: %w: column %q is of type %s", r.Table.Path(), pq.ErrColumn, name, e.TypeName(0))
		}
		f.single = e.Leaf.Kind == parquet.Float
		f.leaf, f.c = e.Leaf, r.Table.Column(s.ctx, e.Leaf, row-r.First)
		s.cols = append(s.cols, f)
	}
	return nil
}

// appendTo appends a row's fields, each with a comma before it.
func (s *scoreFields) appendTo(b []byte, row int64) ([]byte, error) {
	if s.cur == nil || row > s.cur.Last {
		if err := s.open(row); err != nil {
			return nil, err
		}
	}
	for i := range s.cols {
		f := &s.cols[i]
		for at := s.next; at < row; at++ {
			if err := f.c.Row(func(pq.Entry) error { return nil }); err != nil {
				return nil, fmt.Errorf("%s: %w", s.cur.Table.Path(), endsEarly(err))
			}
		}
		b = appendKey(b, s.names[i])
		n := 0
		err := f.c.Row(func(e pq.Entry) error {
			switch {
			case !f.list:
				b = f.appendValue(b, e)
			case e.Def == 0:
				b = append(b, "null"...)
			case e.Def == 1:
				b = append(b, "[]"...)
			default:
				if n++; n == 1 {
					b = append(b, '[')
				} else {
					b = append(b, ',')
				}
				b = f.appendValue(b, e)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.cur.Table.Path(), endsEarly(err))
		}
		if n > 0 {
			b = append(b, ']')
		}
	}
	s.next = row + 1
	return b, nil
}

// endsEarly turns the end of a column before a row into what it is.
func endsEarly(err error) error {
	if err == io.EOF {
		return pq.Corruptf("the file ends before its rows do")
	}
	return err
}

// appendValue appends a value. JSON has no infinity, and no NaN.
func (f *scoreField) appendValue(b []byte, e pq.Entry) []byte {
	if e.Def != f.leaf.MaxDef {
		return append(b, "null"...)
	}
	switch f.kind {
	case pq.Text:
		return appendString(b, string(e.Val))
	case pq.Bool:
		return strconv.AppendBool(b, e.Int(false) != 0)
	case pq.Float:
		x, bits := e.Float(), 64
		if f.single {
			bits = 32
		}
		if math.IsNaN(x) {
			return append(b, "null"...)
		}
		return strconv.AppendFloat(b, max(min(x, math.MaxFloat64), -math.MaxFloat64), 'g', -1, bits)
	}
	return strconv.AppendInt(b, e.Int(f.unsigned), 10)
}
