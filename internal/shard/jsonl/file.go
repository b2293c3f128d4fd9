package jsonl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"surprisal/internal/score"
	"surprisal/internal/shard/pq"
)

// maxReadText bounds the text that one Read holds.
const maxReadText = 1 << 30

// File is an input of JSON lines that is opened to have fields read by row
// (Read) or lines copied (LineCopy), until its context ends. It is for one
// goroutine.
type File struct {
	ctx  context.Context // until it ends the file is open: its scanners are made later, across calls
	in   score.Input
	file pq.File
	scan *Scanner // nil until something is read
	row  int64    // of the scanner's next line
	// what Kinds has told
	kinds map[string]fieldKind
}

type fieldKind struct {
	kind  pq.Kind
	known bool
}

// NewFile reads an input's file, which it has closed.
func NewFile(ctx context.Context, in score.Input, file pq.File) *File {
	return &File{ctx: ctx, in: in, file: file}
}

// Close closes the file. One that was written to meanwhile is
// ErrInputChanged: what was read of it is worth nothing.
func (l *File) Close() error {
	l.stop()
	return errors.Join(l.file.Unchanged(), l.file.Close())
}

func (l *File) stop() {
	if l.scan != nil {
		l.scan.Close()
		l.scan = nil
	}
}

func (l *File) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read %s: %w", l.in.Path, err)
}

// to has the next line be that of a row.
func (l *File) to(row int64) error {
	if l.scan == nil || row < l.row {
		l.stop()
		scan, err := NewScanner(l.ctx, l.file, l.in.Rel, l.in.Size, 0)
		if err != nil {
			return err
		}
		l.scan, l.row = scan, 0
	}
	for ; l.row < row; l.row++ {
		if err := l.next(0); err != nil {
			return err
		}
	}
	return nil
}

func (l *File) next(limit int) error {
	err := l.scan.next(limit)
	if err == io.EOF {
		return pq.Corruptf("the file ends before row %d", l.row)
	}
	return err
}

// Kind tells what the values of a field are in the first rows, by the rule for
// columns: 0 where all are null or missing. known says whether it is there at all,
// even if all values are null. A field is named as the text column is.
func (l *File) Kind(name string) (kind pq.Kind, known bool, err error) {
	if k, ok := l.kinds[name]; ok {
		return k.kind, k.known, nil
	}
	scan, err := NewScanner(l.ctx, l.file, l.in.Rel, l.in.Size, 0)
	if err != nil {
		return 0, false, l.wrap(err)
	}
	defer scan.Close()
	var seen fieldKinds
	err = sampleLines(scan, func(_ []byte, o Object) error {
		v, ok := o.find(name)
		known = known || ok
		seen.add(v)
		return nil
	})
	if err != nil {
		return 0, false, l.wrap(err)
	}
	if l.kinds == nil {
		l.kinds = map[string]fieldKind{}
	}
	l.kinds[name] = fieldKind{seen.kind(), known}
	return seen.kind(), known, nil
}

// Describe lists the fields of the first rows with their types, for messages.
func (l *File) Describe() string {
	scan, err := NewScanner(l.ctx, l.file, l.in.Rel, l.in.Size, 0)
	if err != nil {
		return "no fields that can be read"
	}
	defer scan.Close()
	foot, err := Fields(scan)
	if err != nil {
		return "no fields that can be read"
	}
	return foot.Describe()
}

// Read reads the fields of n rows, from row on, into v, as the kinds given; where
// Int is asked for and a number of these rows is not an integer, they are Float. A value of
// another kind is null, and JSON text where text is asked for; fields of a line that
// is no object are null.
func (l *File) Read(names []string, kinds []pq.Kind, row int64, n int, v []*pq.Values) error {
	if err := l.to(row); err != nil {
		return l.wrap(err)
	}
	for i, to := range v {
		to.Reset(kinds[i])
	}
	text := 0
	for range n {
		if err := l.next(MaxLine); err != nil {
			return l.wrap(err)
		}
		l.row++
		o, _ := l.scan.Object() // its score says what is wrong with it
		for i, name := range names {
			text += appendJSON(v[i], o.field(name))
		}
		if text > maxReadText {
			return l.wrap(fmt.Errorf("%w: %d values have more than %d bytes", pq.ErrColumn, n, maxReadText))
		}
	}
	for _, to := range v {
		settle(to)
	}
	return nil
}

// appendJSON appends a field's value and gives the bytes that it takes.
func appendJSON(v *pq.Values, x json.RawMessage) int {
	null, size := x == nil, 0
	switch v.Kind {
	case pq.Text:
		var text []byte
		if !null {
			if text = slices.Clone([]byte(x)); x[0] == '"' {
				var s string
				null = json.Unmarshal(x, &s) != nil
				text = []byte(s)
			}
			size = len(text)
		}
		v.Texts = append(v.Texts, text)
	case pq.Bool:
		null = null || x[0] != 't' && x[0] != 'f'
		n := int64(0)
		if !null && x[0] == 't' {
			n = 1
		}
		v.Ints = append(v.Ints, n)
	default: // Int until one is not
		f, err := strconv.ParseFloat(string(x), 64)
		null = null || err != nil || jsonKind(x) != "number"
		n, err := strconv.ParseInt(string(x), 10, 64)
		if null {
			n, f = 0, 0
		} else if err != nil {
			v.Kind = pq.Float
		}
		v.Ints, v.Floats = append(v.Ints, n), append(v.Floats, f)
	}
	v.Null = append(v.Null, null)
	return size
}

// settle leaves one of Ints and Floats.
func settle(v *pq.Values) {
	switch v.Kind {
	case pq.Int:
		v.Floats = v.Floats[:0]
	case pq.Float:
		v.Ints = v.Ints[:0]
	}
}

// fieldKinds counts the values of a field by type.
type fieldKinds struct{ ints, floats, bools, others int }

func (k *fieldKinds) add(v json.RawMessage) {
	switch {
	case v == nil || string(v) == "null":
	case v[0] == 't' || v[0] == 'f':
		k.bools++
	case jsonKind(v) == "number":
		if _, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			k.ints++
		} else {
			k.floats++
		}
	default:
		k.others++
	}
}

// kind is the type that all values have, Text where they have several, 0 without any.
func (k *fieldKinds) kind() pq.Kind {
	switch {
	case k.others > 0 || k.bools > 0 && k.ints+k.floats > 0:
		return pq.Text
	case k.bools > 0:
		return pq.Bool
	case k.floats > 0:
		return pq.Float
	case k.ints > 0:
		return pq.Int
	}
	return 0
}
