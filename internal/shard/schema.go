package shard

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

// element is a node of a file's schema.
type element struct {
	se       format.SchemaElement
	children []*element
	leaf     *leaf // nil for a group
	maxDef   uint8
	maxRep   uint8
}

// leaf is a column of values.
type leaf struct {
	path           string // dotted, for messages
	index          int    // among the file's leaves
	kind           parquet.Kind
	fixedLen       int // of FIXED_LEN_BYTE_ARRAY
	maxRep, maxDef uint8
}

func (e *element) repeated() bool { return e.repetition() == format.Repeated }

func (e *element) repetition() format.FieldRepetitionType {
	if !e.se.RepetitionType.Valid {
		return format.Required
	}
	return e.se.RepetitionType.V
}

func buildSchema(elems []format.SchemaElement) (*element, []*leaf, error) {
	if len(elems) == 0 {
		return nil, nil, corruptf("footer: no schema")
	}
	b := schemaBuilder{elems: elems}
	root, err := b.next(nil, 0)
	if err != nil {
		return nil, nil, corruptf("footer: schema: %w", err)
	}
	if b.at != len(elems) {
		return nil, nil, corruptf("footer: schema: %d elements belong to no group", len(elems)-b.at)
	}
	if root.leaf != nil {
		return nil, nil, corruptf("footer: schema: the root is no group")
	}
	return root, b.leaves, nil
}

type schemaBuilder struct {
	elems  []format.SchemaElement
	at     int
	leaves []*leaf
	path   []string
}

func (b *schemaBuilder) next(parent *element, depth int) (*element, error) {
	if b.at >= len(b.elems) {
		return nil, fmt.Errorf("a group has fewer children than it claims")
	}
	if depth > maxSchemaDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxSchemaDepth)
	}
	e := &element{se: b.elems[b.at]}
	b.at++
	if parent != nil {
		e.maxDef, e.maxRep = parent.maxDef, parent.maxRep
		switch e.repetition() {
		case format.Required:
		case format.Optional:
			e.maxDef++
		case format.Repeated:
			e.maxDef++
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

func (b *schemaBuilder) leaf(e *element) error {
	l := &leaf{
		path: strings.Join(b.path, "."), index: len(b.leaves), kind: parquet.Kind(e.se.Type.V),
		maxRep: e.maxRep, maxDef: e.maxDef,
	}
	if e.se.Type.V < format.Boolean || e.se.Type.V > format.FixedLenByteArray {
		return fmt.Errorf("column %q: physical type %d", l.path, e.se.Type.V)
	}
	if l.kind == parquet.FixedLenByteArray {
		if l.fixedLen = int(e.se.TypeLength.V); l.fixedLen < 1 || l.fixedLen > maxFixedLen {
			return fmt.Errorf("column %q: %d bytes a value", l.path, l.fixedLen)
		}
	}
	if len(b.leaves) >= maxSchemaLeaves {
		return fmt.Errorf("more than %d columns", maxSchemaLeaves)
	}
	e.leaf = l
	b.leaves = append(b.leaves, l)
	return nil
}

// top finds a top-level column.
func (f *footer) top(name string) (*element, error) {
	var found *element
	for _, c := range f.schema.children {
		if c.se.Name != name {
			continue
		}
		if found != nil {
			return nil, f.columnErr("column %q is there twice", name)
		}
		found = c
	}
	if found == nil {
		if i := strings.IndexByte(name, '.'); i > 0 && f.has(name[:i]) {
			return nil, f.columnErr("column %q: fields of nested columns can't be named, only whole top-level columns", name)
		}
		return nil, f.columnErr("no column %q", name)
	}
	return found, nil
}

// field finds a column: a top-level one of that name, else a field of structs.
func (f *footer) field(name string) (*element, error) {
	if !f.has(name) {
		if e := f.schema.inner(name); e != nil {
			return e, nil
		}
		if i := strings.IndexByte(name, '.'); i > 0 && f.has(name[:i]) {
			return nil, f.columnErr("no field %q in column %q", name[i+1:], name[:i])
		}
	}
	return f.top(name)
}

// inner finds a field by its names, joined by dots; nil if there is none.
func (e *element) inner(name string) *element {
	for _, c := range e.children {
		if c.se.Name == name {
			return c
		}
	}
	for _, c := range e.children {
		if rest, ok := strings.CutPrefix(name, c.se.Name+"."); ok && c.leaf == nil {
			if found := c.inner(rest); found != nil {
				return found
			}
		}
	}
	return nil
}

func (f *footer) has(name string) bool {
	for _, c := range f.schema.children {
		if c.se.Name == name {
			return true
		}
	}
	return false
}

func (f *footer) columnErr(form string, a ...any) error {
	return fmt.Errorf("%w: %s; the file has %s", ErrColumn, fmt.Sprintf(form, a...), f.describe())
}

// describe lists the top-level columns with their types.
func (f *footer) describe() string {
	var s []string
	for i, c := range f.schema.children {
		if i == maxColumnsListed {
			s = append(s, fmt.Sprintf("and %d more", len(f.schema.children)-i))
			break
		}
		s = append(s, fmt.Sprintf("%q %s", c.se.Name, c.typeName(0)))
	}
	if len(s) == 0 {
		return "no columns"
	}
	return strings.Join(s, ", ")
}

// typeName says an element's type in words for people.
func (e *element) typeName(depth int) string {
	if e.leaf == nil {
		if depth > 3 {
			return "…"
		}
		if list := e.listElement(); list != nil {
			return "list<" + list.typeName(depth+1) + ">"
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
			s = append(s, c.se.Name+": "+c.typeName(depth+1))
		}
		return "struct<" + strings.Join(s, ", ") + ">"
	}
	name := strings.ToLower(e.leaf.kind.String())
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
	if e.repeated() {
		return "repeated " + name
	}
	return name
}

func (e *element) annotated(ct deprecated.ConvertedType, is func(any) bool) bool {
	return is(e.se.LogicalType.Value) || (e.se.ConvertedType.Valid && e.se.ConvertedType.V == ct)
}

// listElement gives the element of a LIST column, in the standard three-level
// form, in the legacy two-level one and as a bare repeated field; nil if e is
// no list.
func (e *element) listElement() *element {
	if e.leaf != nil {
		if e.repeated() {
			return e
		}
		return nil
	}
	if len(e.children) != 1 || !e.children[0].repeated() ||
		!e.annotated(deprecated.List, func(v any) bool { _, ok := v.(*format.ListType); return ok }) {
		return nil
	}
	rep := e.children[0]
	if rep.leaf != nil || len(rep.children) != 1 || rep.se.Name == "array" || rep.se.Name == e.se.Name+"_tuple" {
		return rep // the repeated field is the element itself
	}
	return rep.children[0]
}

// appendLeaves lists the leaves below e, in order.
func (e *element) appendLeaves(l []*leaf) []*leaf {
	if e.leaf != nil {
		return append(l, e.leaf)
	}
	for _, c := range e.children {
		l = c.appendLeaves(l)
	}
	return l
}

// name is the element's own.
func (e *element) name() string { return e.se.Name }

// isText tells whether a column holds strings, JSON or bytes that nothing is said of.
func (e *element) isText() bool {
	if e.leaf == nil || e.maxRep > 0 || e.leaf.kind != parquet.ByteArray {
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

// isInteger tells whether values are integers of 32 or 64 bits, and whether they
// are unsigned.
func (e *element) isInteger() (unsigned, ok bool) {
	if e.leaf == nil || e.leaf.kind != parquet.Int32 && e.leaf.kind != parquet.Int64 {
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

// newElement is an optional column of plain values, and of text if they are bytes.
func newElement(name string, kind parquet.Kind) *element {
	e := &element{maxDef: 1, leaf: &leaf{path: name, kind: kind, maxDef: 1}}
	e.se.Name = name
	e.se.Type.Set(format.Type(kind))
	e.se.RepetitionType.Set(format.Optional)
	if kind == parquet.ByteArray {
		e.se.LogicalType.Value = &format.StringType{}
		e.se.ConvertedType.Set(deprecated.UTF8)
	}
	return e
}
