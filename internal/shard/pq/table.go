package pq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Table is a parquet file opened to have single columns read (Scalar) or rows
// copied (Copy), until its context ends. Its columns may be read by several
// goroutines at once.
type Table struct {
	path string
	file File // nil once it is closed
	foot *Footer
}

// File is what a Table reads.
type File interface {
	io.ReaderAt
	// Unchanged is an error when the file is no longer what was opened.
	Unchanged() error
	Close() error
}

// OpenTable reads the footer of a file of the given name, for messages, and size.
// The table has the file closed; if that fails, it is closed.
func OpenTable(name string, file File, size int64) (*Table, error) {
	t := &Table{path: name, file: file}
	err := Recovered(func() (err error) {
		t.foot, err = ReadFooter(file, size)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, errors.Join(err, file.Close()))
	}
	return t, nil
}

// Borders stands for an input without row groups where files beside it are copied
// (Copy.BesideOnly): it has theirs, and no columns. It need not be closed.
func Borders(path string, beside []Range) *Table {
	foot := NewFooter(nil, 0)
	for _, s := range beside {
		for _, g := range s.Table.foot.groups {
			foot.groups = append(foot.groups, rowGroup{first: s.First + g.first, rows: g.rows})
		}
		foot.Rows += s.Table.foot.Rows
	}
	return &Table{path: path, foot: foot}
}

// Path is the file's name.
func (t *Table) Path() string { return t.path }

// Footer is what the file says of itself.
func (t *Table) Footer() *Footer { return t.foot }

// footerBytes reads the footer again, for more of its fields.
func (t *Table) footerBytes() ([]byte, error) {
	if t.file == nil || t.foot.size == 0 {
		return nil, nil
	}
	b := make([]byte, t.foot.size)
	return b, ReadFull(t.file, b, t.foot.DataEnd)
}

// Column starts to read a column at a row.
func (t *Table) Column(ctx context.Context, l *Leaf, row int64) *Column {
	return NewColumn(ctx, t.file, t.foot, l, row)
}

// Rows is the number of rows.
func (t *Table) Rows() int64 { return t.foot.Rows }

// Has reports whether there is a top-level column of that name.
func (t *Table) Has(name string) bool { return t.foot.Has(name) }

// HasField is Has, also of a field of structs: its names joined by dots.
func (t *Table) HasField(name string) bool {
	_, err := t.foot.Field(name)
	return err == nil
}

// Describe lists the columns with their types, for messages.
func (t *Table) Describe() string { return t.foot.Describe() }

// Metadata gives a key of the file's key-value metadata.
func (t *Table) Metadata(key string) (string, bool) { return t.foot.Lookup(key) }

// Close closes the file. One that was written to meanwhile is
// ErrInputChanged: what was read of it is worth nothing.
func (t *Table) Close() error {
	if t.file == nil {
		return nil
	}
	f := t.file
	t.file = nil
	return errors.Join(f.Unchanged(), f.Close())
}

// Kind is what the values of a scalar column are.
type Kind uint8

// The kinds.
const (
	Int Kind = iota + 1
	Float
	Bool
	Text
)

func (k Kind) String() string { return [...]string{"?", "integer", "number", "boolean", "text"}[k] }

// Values are consecutive values of a scalar column. One of Ints (Int; Bool as 0
// and 1), Floats and Texts is set; the memory is used again by the next Read.
type Values struct {
	Kind   Kind
	Null   []bool // [N]
	Ints   []int64
	Floats []float64
	Texts  [][]byte
	text   []byte
}

// Reset empties v for values of a kind.
func (v *Values) Reset(kind Kind) {
	*v = Values{Kind: kind, Null: v.Null[:0], Ints: v.Ints[:0], Floats: v.Floats[:0], Texts: v.Texts[:0],
		text: v.text[:0]}
}

// Len is the number of values.
func (v *Values) Len() int { return len(v.Null) }

// Scalar reads a column of plain values, many at a time.
type Scalar struct {
	kind     Kind
	unsigned bool
	path     string
	c        *Column
	ends     []int // of texts, while their memory may move
}

// Scalar starts to read a column, or a field of structs, at a row. The error wraps
// ErrColumn when the file has no such column, or one whose values can't be compared:
// lists, structs, dates, decimals.
func (t *Table) Scalar(ctx context.Context, name string, row int64) (*Scalar, error) {
	e, err := t.foot.Field(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.path, err)
	}
	s := &Scalar{path: t.path}
	if s.kind, s.unsigned = e.scalarKind(); s.kind == 0 {
		return nil, fmt.Errorf("%s: %w", t.path,
			t.foot.ColumnErr("column %q is of type %s: only text, numbers and booleans can be used", name,
				e.TypeName(0)))
	}
	s.c = NewColumn(ctx, t.file, t.foot, e.Leaf, row)
	return s, nil
}

// Kind is what its values are.
func (s *Scalar) Kind() Kind { return s.kind }

// maxBatchText bounds the text that one Read holds.
const maxBatchText = 1 << 30

// Read reads the next n values, fewer where the rows end; io.EOF past the last.
// Texts that are more than 1 GiB together are ErrColumn.
func (s *Scalar) Read(v *Values, n int) error {
	v.Reset(s.kind)
	s.ends = s.ends[:0]
	err := Recovered(func() error { return s.read(v, n) })
	if err == io.EOF {
		return err
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", s.path, s.c.wrap(err))
	}
	at := 0
	for i, end := range s.ends {
		if v.Null[i] {
			v.Texts = append(v.Texts, nil)
		} else {
			v.Texts = append(v.Texts, v.text[at:end:end])
		}
		at = end
	}
	return nil
}

func (s *Scalar) read(v *Values, n int) error {
	c := s.c
	for v.Len() < n {
		for c.left == 0 {
			if err := c.nextGroup(); err == io.EOF && v.Len() > 0 {
				return nil
			} else if err != nil {
				return err
			}
		}
		for c.at == c.entries {
			if err := c.nextPage(); err != nil {
				return eofIsShort(err, c.left)
			}
		}
		k := min(n-v.Len(), c.entries-c.at, int(min(c.left, 1<<30)))
		if err := s.some(v, k); err != nil {
			return err
		}
	}
	return nil
}

// some moves the column's next n entries, which are of its page, to v.
func (s *Scalar) some(v *Values, n int) error {
	c := s.c
	from := len(v.Null)
	v.Null = slices.Grow(v.Null, n)[:from+n]
	null := v.Null[from:]
	clear(null)
	if c.def != nil {
		for i, d := range c.def[c.at : c.at+n] {
			null[i] = d != c.Leaf.MaxDef
		}
	}
	c.at += n
	c.left -= int64(n)
	vals, val := &c.vals, c.valAt
	switch s.kind {
	case Text:
		for _, null := range null {
			if !null {
				v.text = append(v.text, vals.At(val)...)
				val++
			}
			s.ends = append(s.ends, len(v.text))
			if len(v.text) > maxBatchText {
				return fmt.Errorf("%w: %d values have more than %d bytes", ErrColumn, v.Len(), maxBatchText)
			}
		}
	case Float:
		for _, null := range null {
			x := 0.0
			if !null {
				x = floatValue(vals.At(val))
				val++
			}
			v.Floats = append(v.Floats, x)
		}
	default:
		for _, null := range null {
			x := int64(0)
			if !null {
				x = intValue(vals.At(val), s.unsigned)
				val++
			}
			v.Ints = append(v.Ints, x)
		}
	}
	c.valAt = val
	return nil
}
