package shard

import (
	"bufio"
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
)

// LineCopy says which lines of an input are copied to a file of their own, byte
// for byte unless fields are added.
type LineCopy struct {
	In   *Lines
	Rows *Bitmap // nil: all
	// Scores adds the score files' own columns as fields behind the line's, of the
	// same rows; nil adds none. Every row that is copied must have its score.
	Scores []ScoreRange
	// Label adds a field of that name, null where Value is empty; none when the
	// name is empty. A line that is no object is copied without fields.
	Label string
	Value func(row int64) string
}

// CopyLines writes the lines of rows [0, rows) that c names to a file of d, which
// is compressed as its name says.
func (d *Dest) CopyLines(ctx context.Context, name string, rows int64, c LineCopy) error {
	err := d.WriteLines(ctx, name, func(w io.Writer) error {
		return recovered(func() error { return c.to(ctx, w, rows) })
	})
	if err != nil {
		return fmt.Errorf("copy %s: %w", c.In.in.Path, err)
	}
	return nil
}

// WriteLines is WriteFile, compressed as the name says.
func (d *Dest) WriteLines(ctx context.Context, name string, content func(io.Writer) error) error {
	return d.WriteFile(ctx, name, func(w io.Writer) error {
		z, err := compressLines(w, name)
		if err != nil {
			return err
		}
		b := bufio.NewWriterSize(z, 1<<16)
		if err := content(b); err != nil {
			return err
		}
		if err := b.Flush(); err != nil {
			return err
		}
		return z.Close()
	})
}

// compressLines compresses what is written to w as name says.
func compressLines(w io.Writer, name string) (io.WriteCloser, error) {
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

func (c *LineCopy) to(ctx context.Context, w io.Writer, rows int64) error {
	l := c.In
	var scores *scoreFields
	if len(c.Scores) > 0 {
		scores = newScoreFields(ctx, c.Scores)
	}
	for from := int64(0); ; {
		a, b := from, rows
		if c.Rows != nil {
			a, b = c.Rows.run(from, rows)
		}
		if a == b {
			return nil
		}
		if err := l.to(a); err != nil {
			return err
		}
		for row := a; row < b; row++ {
			l.scan.over = w
			err := l.next(maxLine)
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
func (c *LineCopy) withFields(line []byte, size, row int64, scores *scoreFields) ([]byte, error) {
	o, problem := jsonObject(line, size)
	if problem != "" {
		return line, nil
	}
	var add []byte
	if scores != nil {
		for _, name := range scores.names {
			if _, ok := o[name]; ok {
				return nil, fmt.Errorf("%w: line of row %d has a field %q of its own", ErrColumn, row, name)
			}
		}
		var err error
		if add, err = scores.appendTo(add, row); err != nil {
			return nil, err
		}
	}
	if c.Label != "" {
		if _, ok := o[c.Label]; ok {
			return nil, fmt.Errorf("%w: line of row %d has a field %q of its own", ErrColumn, row, c.Label)
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
	ctx    context.Context
	ranges []ScoreRange
	names  []string
	cur    *ScoreRange
	cols   []scoreField
	next   int64 // row that the columns are at
}

type scoreField struct {
	c        *column
	kind     Kind
	unsigned bool
	list     bool
	single   bool // float32
}

func newScoreFields(ctx context.Context, ranges []ScoreRange) *scoreFields {
	s := &scoreFields{ctx: ctx, ranges: ranges}
	for _, e := range (&Copy{Scores: ranges}).scoreElements() {
		s.names = append(s.names, e.se.Name)
	}
	return s
}

// open starts to read the score file of a row.
func (s *scoreFields) open(row int64) error {
	r := rangeOf(s.ranges, row)
	if r == nil {
		return fmt.Errorf("row %d has no score", row)
	}
	s.cur, s.cols, s.next = r, nil, row
	for _, name := range s.names {
		e, err := r.Table.foot.top(name)
		if err != nil {
			return fmt.Errorf("%s: %w", r.Table.path, err)
		}
		f := scoreField{}
		if el := e.listElement(); el != nil {
			e, f.list = el, true
		}
		if e.leaf == nil || e.leaf.maxRep > 1 {
			return fmt.Errorf("%s: %w: column %q is of type %s", r.Table.path, ErrColumn, name, e.typeName(0))
		}
		flat := *e
		flat.se.RepetitionType.Valid = false
		leaf := *e.leaf
		leaf.maxRep = 0
		flat.leaf = &leaf
		if f.kind, f.unsigned = flat.scalarKind(); f.kind == 0 {
			return fmt.Errorf("%s: %w: column %q is of type %s", r.Table.path, ErrColumn, name, e.typeName(0))
		}
		f.single = kindWidth(e.leaf) == 4
		f.c = newColumn(s.ctx, r.Table.file, r.Table.foot, e.leaf, row-r.First)
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
			if err := f.c.row(func(entry) error { return nil }); err != nil {
				return nil, fmt.Errorf("%s: %w", s.cur.Table.path, eofIsShort(err, 1))
			}
		}
		b = appendKey(b, s.names[i])
		n := 0
		err := f.c.row(func(e entry) error {
			switch {
			case !f.list:
				b = f.appendValue(b, e)
			case e.def == 0:
				b = append(b, "null"...)
			case e.def == 1:
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
			return nil, fmt.Errorf("%s: %w", s.cur.Table.path, eofIsShort(err, 1))
		}
		if n > 0 {
			b = append(b, ']')
		}
	}
	s.next = row + 1
	return b, nil
}

// appendValue appends a value. JSON has no infinity, and no NaN.
func (f *scoreField) appendValue(b []byte, e entry) []byte {
	if e.def != f.c.leaf.maxDef {
		return append(b, "null"...)
	}
	val := e.val
	switch f.kind {
	case Text:
		return appendString(b, string(val))
	case Bool:
		return strconv.AppendBool(b, intValue(val, false) != 0)
	case Float:
		x, bits := floatValue(val), 64
		if f.single {
			bits = 32
		}
		if math.IsNaN(x) {
			return append(b, "null"...)
		}
		return strconv.AppendFloat(b, max(min(x, math.MaxFloat64), -math.MaxFloat64), 'g', -1, bits)
	}
	return strconv.AppendInt(b, intValue(val, f.unsigned), 10)
}
