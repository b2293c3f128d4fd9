package pq

import (
	"fmt"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"
)

const (
	maxSchemaDepth   = 64
	maxFixedLen      = 1 << 20
	maxColumnsListed = 30
)

// Element is a node of a file's schema.
type Element struct {
	se       format.SchemaElement
	children []*Element
	Leaf     *Leaf // nil for a group
	MaxDef   uint8
	maxRep   uint8
}

// Leaf is a column of values.
type Leaf struct {
	Path           string // dotted, for messages
	Index          int    // among the file's leaves
	Kind           parquet.Kind
	fixedLen       int // of FIXED_LEN_BYTE_ARRAY
	MaxRep, MaxDef uint8
}

func (e *Element) Repeated() bool { return e.repetition() == format.Repeated }

func (e *Element) repetition() format.FieldRepetitionType {
	if !e.se.RepetitionType.Valid {
		return format.Required
	}
	return e.se.RepetitionType.V
}

func buildSchema(elems []format.SchemaElement) (*Element, []*Leaf, error) {
	if len(elems) == 0 {
		return nil, nil, Corruptf("footer: no schema")
	}
	b := schemaBuilder{elems: elems}
	root, err := b.next(nil, 0)
	if err != nil {
		return nil, nil, Corruptf("footer: schema: %w", err)
	}
	if b.at != len(elems) {
		return nil, nil, Corruptf("footer: schema: %d elements belong to no group", len(elems)-b.at)
	}
	if root.Leaf != nil {
		return nil, nil, Corruptf("footer: schema: the root is not a group")
	}
	return root, b.leaves, nil
}

type schemaBuilder struct {
	elems  []format.SchemaElement
	at     int
	leaves []*Leaf
	path   []string
}

func (b *schemaBuilder) next(parent *Element, depth int) (*Element, error) {
	if b.at >= len(b.elems) {
		return nil, fmt.Errorf("a group has fewer children than it claims")
	}
	if depth > maxSchemaDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxSchemaDepth)
	}
	e := &Element{se: b.elems[b.at]}
	b.at++
	if parent != nil {
		e.MaxDef, e.maxRep = parent.MaxDef, parent.maxRep
		switch e.repetition() {
		case format.Required:
		case format.Optional:
			e.MaxDef++
		case format.Repeated:
			e.MaxDef++
			e.maxRep++
		default:
			return nil, fmt.Errorf("column %q: repetition %d", e.se.Name, e.repetition())
		}
		b.path = append(b.path, e.se.Name)
		defer func() { b.path = b.path[:len(b.path)-1] }()
	}
	if e.se.Type.Valid {
		return e, b.leaf(e)
	}
	n := 0
	if e.se.NumChildren.Valid {
		n = int(e.se.NumChildren.V)
	}
	if n < 0 || n > len(b.elems)-b.at {
		return nil, fmt.Errorf("column %q: %d children", e.se.Name, n)
	}
	for range n {
		c, err := b.next(e, depth+1)
		if err != nil {
			return nil, err
		}
		e.children = append(e.children, c)
	}
	return e, nil
}

func (b *schemaBuilder) leaf(e *Element) error {
	l := &Leaf{
		Path: strings.Join(b.path, "."), Index: len(b.leaves), Kind: parquet.Kind(e.se.Type.V),
		MaxRep: e.maxRep, MaxDef: e.MaxDef,
	}
	if e.se.Type.V < format.Boolean || e.se.Type.V > format.FixedLenByteArray {
		return fmt.Errorf("column %q: physical type %d", l.Path, e.se.Type.V)
	}
	if l.Kind == parquet.FixedLenByteArray {
		if l.fixedLen = int(e.se.TypeLength.V); l.fixedLen < 1 || l.fixedLen > maxFixedLen {
			return fmt.Errorf("column %q: %d bytes a value", l.Path, l.fixedLen)
		}
	}
	if len(b.leaves) >= maxSchemaLeaves {
		return fmt.Errorf("more than %d columns", maxSchemaLeaves)
	}
	e.Leaf = l
	b.leaves = append(b.leaves, l)
	return nil
}

// Top finds a top-level column.
func (f *Footer) Top(name string) (*Element, error) {
	var found *Element
	for _, c := range f.schema.children {
		if c.se.Name != name {
			continue
		}
		if found != nil {
			return nil, f.ColumnErr("column %q occurs twice", name)
		}
		found = c
	}
	if found == nil {
		if i := strings.IndexByte(name, '.'); i > 0 && f.Has(name[:i]) {
			return nil, f.ColumnErr("column %q: only whole top-level columns can be named, not fields of nested ones",
				name)
		}
		return nil, f.ColumnErr("no column %q", name)
	}
	return found, nil
}

// Field finds a column: a top-level one of that name, else a field of structs.
func (f *Footer) Field(name string) (*Element, error) {
	if !f.Has(name) {
		if e := f.schema.inner(name); e != nil {
			return e, nil
		}
		if i := strings.IndexByte(name, '.'); i > 0 && f.Has(name[:i]) {
			return nil, f.ColumnErr("no field %q in column %q", name[i+1:], name[:i])
		}
	}
	return f.Top(name)
}

// inner finds a field by its names, joined by dots; nil if there is none.
func (e *Element) inner(name string) *Element {
	for _, c := range e.children {
		if c.se.Name == name {
			return c
		}
	}
	for _, c := range e.children {
		if rest, ok := strings.CutPrefix(name, c.se.Name+"."); ok && c.Leaf == nil {
			if found := c.inner(rest); found != nil {
				return found
			}
		}
	}
	return nil
}

func (f *Footer) Has(name string) bool {
	for _, c := range f.schema.children {
		if c.se.Name == name {
			return true
		}
	}
	return false
}

func (f *Footer) ColumnErr(form string, a ...any) error {
	return fmt.Errorf("%w: %s; the file has %s", ErrColumn, fmt.Sprintf(form, a...), f.Describe())
}

// Describe lists the top-level columns with their types.
func (f *Footer) Describe() string {
	var s []string
	for i, c := range f.schema.children {
		if i == maxColumnsListed {
			s = append(s, fmt.Sprintf("and %d more", len(f.schema.children)-i))
			break
		}
		s = append(s, fmt.Sprintf("%q %s", c.se.Name, c.TypeName(0)))
	}
	if len(s) == 0 {
		return "no columns"
	}
	return strings.Join(s, ", ")
}

// TypeName says an element's type as a message.
func (e *Element) TypeName(depth int) string {
	if e.Leaf == nil {
		if depth > 3 {
			return "…"
		}
		if list := e.ListElement(); list != nil {
			return "list<" + list.TypeName(depth+1) + ">"
		}
		if e.annotated(deprecated.Map, func(v any) bool { _, ok := v.(*format.MapType); return ok }) {
			return "map"
		}
		var s []string
		for i, c := range e.children {
			if i == 8 {
				s = append(s, "…")
				break
			}
			s = append(s, c.se.Name+": "+c.TypeName(depth+1))
		}
		return "struct<" + strings.Join(s, ", ") + ">"
	}
	name := strings.ToLower(e.Leaf.Kind.String())
	switch v := e.se.LogicalType.Value.(type) {
	case nil:
		if e.se.ConvertedType.Valid {
			if e.se.ConvertedType.V == deprecated.UTF8 {
				return "string"
			}
			name += fmt.Sprintf(" (converted type %d)", e.se.ConvertedType.V)
		}
	case *format.StringType:
		return "string"
	default:
		name += " (" + strings.ToLower(v.String()) + ")"
	}
	if e.Repeated() {
		return "repeated " + name
	}
	return name
}

func (e *Element) annotated(ct deprecated.ConvertedType, is func(any) bool) bool {
	return is(e.se.LogicalType.Value) || (e.se.ConvertedType.Valid && e.se.ConvertedType.V == ct)
}

// ListElement gives the element of a LIST column, in the standard three-level
// form, in the legacy two-level one and as a bare repeated field; nil if e is
// no list.
func (e *Element) ListElement() *Element {
	if e.Leaf != nil {
		if e.Repeated() {
			return e
		}
		return nil
	}
	if len(e.children) != 1 || !e.children[0].Repeated() ||
		!e.annotated(deprecated.List, func(v any) bool { _, ok := v.(*format.ListType); return ok }) {
		return nil
	}
	rep := e.children[0]
	if rep.Leaf != nil || len(rep.children) != 1 || rep.se.Name == "array" || rep.se.Name == e.se.Name+"_tuple" {
		return rep // the repeated field is the element itself
	}
	return rep.children[0]
}

// AppendLeaves lists the leaves below e, in order.
func (e *Element) AppendLeaves(l []*Leaf) []*Leaf {
	if e.Leaf != nil {
		return append(l, e.Leaf)
	}
	for _, c := range e.children {
		l = c.AppendLeaves(l)
	}
	return l
}

// Name is the element's own.
func (e *Element) Name() string { return e.se.Name }

// IsText reports whether a column holds strings, JSON or bytes that nothing is said of.
func (e *Element) IsText() bool {
	if e.Leaf == nil || e.maxRep > 0 || e.Leaf.Kind != parquet.ByteArray {
		return false
	}
	switch e.se.LogicalType.Value.(type) {
	case *format.StringType, *format.JsonType:
		return true
	case nil:
		ct := e.se.ConvertedType
		return !ct.Valid || ct.V == deprecated.UTF8 || ct.V == deprecated.Json
	}
	return false
}

// IsInteger reports whether values are integers of 32 or 64 bits, and whether they
// are unsigned.
func (e *Element) IsInteger() (unsigned, ok bool) {
	if e.Leaf == nil || e.Leaf.Kind != parquet.Int32 && e.Leaf.Kind != parquet.Int64 {
		return false, false
	}
	switch v := e.se.LogicalType.Value.(type) {
	case nil:
		if !e.se.ConvertedType.Valid {
			return false, true
		}
		switch e.se.ConvertedType.V {
		case deprecated.Uint8, deprecated.Uint16, deprecated.Uint32, deprecated.Uint64:
			return true, true
		case deprecated.Int8, deprecated.Int16, deprecated.Int32, deprecated.Int64:
			return false, true
		}
	case *format.IntType:
		return !v.IsSigned, true
	}
	return false, false
}

// NewElement is an optional column of plain values, and of text if they are bytes.
func NewElement(name string, kind parquet.Kind) *Element {
	e := &Element{MaxDef: 1, Leaf: &Leaf{Path: name, Kind: kind, MaxDef: 1}}
	e.se.Name = name
	e.se.Type.Set(format.Type(kind))
	e.se.RepetitionType.Set(format.Optional)
	if kind == parquet.ByteArray {
		e.se.LogicalType.Value = &format.StringType{}
		e.se.ConvertedType.Set(deprecated.UTF8)
	}
	return e
}

// kindWidth is the bytes of a value, PLAIN but for a bool, which has one; 0 for BYTE_ARRAY.
func kindWidth(l *Leaf) int {
	switch l.Kind {
	case parquet.Boolean:
		return 1
	case parquet.Int32, parquet.Float:
		return 4
	case parquet.Int64, parquet.Double:
		return 8
	case parquet.Int96:
		return 12
	case parquet.FixedLenByteArray:
		return l.fixedLen
	}
	return 0
}
