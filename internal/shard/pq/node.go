package pq

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// Node is a field of a score file's schema. The library's own groups sort their
// fields by name; these keep the order they are given in.
type Node struct {
	name   string
	typ    parquet.Type
	rep    format.FieldRepetitionType
	leaf   bool
	id     int
	fields []parquet.Field
	exact  bool // typ is an exactType, whose order of values is not known
}

func (n *Node) ID() int                             { return n.id }
func (n *Node) String() string                      { return n.name }
func (n *Node) Type() parquet.Type                  { return n.typ }
func (n *Node) Optional() bool                      { return n.rep == format.Optional }
func (n *Node) Repeated() bool                      { return n.rep == format.Repeated }
func (n *Node) Required() bool                      { return n.rep == format.Required }
func (n *Node) Leaf() bool                          { return n.leaf }
func (n *Node) Fields() []parquet.Field             { return n.fields }
func (n *Node) Encoding() encoding.Encoding         { return &parquet.Plain }
func (n *Node) Compression() compress.Codec         { return nil }
func (n *Node) GoType() reflect.Type                { return reflect.TypeFor[any]() }
func (n *Node) Name() string                        { return n.name }
func (n *Node) Value(v reflect.Value) reflect.Value { return v }

var groupType = parquet.Group{}.Type()

func LeafNode(name string, t parquet.Type, rep format.FieldRepetitionType) *Node {
	return &Node{name: name, typ: t, rep: rep, leaf: true}
}

// ListNode is a three-level list that may be null, as Arrow writes it.
func ListNode(name string, t parquet.Type) *Node {
	el := LeafNode("element", t, format.Optional)
	rep := &Node{name: "list", typ: groupType, rep: format.Repeated, fields: []parquet.Field{el}}
	return &Node{name: name, typ: parquet.List(parquet.Leaf(t)).Type(), rep: format.Optional,
		fields: []parquet.Field{rep}}
}

// NewSchema is the root of what the elements describe, and these nodes behind them.
func NewSchema(elements []*Element, own ...*Node) (*Node, error) {
	root := &Node{name: "schema", typ: groupType}
	kept, err := keptNodes(elements)
	if err != nil {
		return nil, err
	}
	for _, n := range slices.Concat(kept, own) {
		root.fields = append(root.fields, n)
	}
	return root, nil
}

// keptNodes makes nodes that write what the elements describe. The library
// turns schema elements into types only for a file, so it is shown one of these
// columns and no rows.
func keptNodes(elements []*Element) ([]*Node, error) {
	if len(elements) == 0 {
		return nil, nil
	}
	root := format.SchemaElement{Name: "schema"}
	root.NumChildren.Set(int32(len(elements)))
	meta := format.FileMetaData{Version: 1, Schema: []format.SchemaElement{root}, RowGroups: []format.RowGroup{}}
	for _, e := range elements {
		meta.Schema = e.appendTo(meta.Schema)
	}
	var nodes []*Node
	err := Recovered(func() error {
		b, err := thrift.Marshal(new(thrift.CompactProtocol), &meta)
		if err != nil {
			return err
		}
		file := append([]byte("PAR1"), b...)
		file = binary.LittleEndian.AppendUint32(file, uint32(len(b)))
		file = append(file, "PAR1"...)
		f, err := parquet.OpenFile(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return err
		}
		for i, c := range f.Root().Columns() {
			nodes = append(nodes, newNode(elements[i], c))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("kept columns: %w", err)
	}
	return nodes, nil
}

func (e *Element) appendTo(s []format.SchemaElement) []format.SchemaElement {
	s = append(s, e.se)
	for _, c := range e.children {
		s = c.appendTo(s)
	}
	return s
}

func newNode(e *Element, c *parquet.Column) *Node {
	n := &Node{name: e.se.Name, typ: c.Type(), rep: e.repetition(), leaf: e.Leaf != nil, id: int(e.se.FieldID)}
	if n.leaf && !sameType(n.typ, e) {
		n.typ, n.exact = exactType{physicalType(e.Leaf), e.se}, true
	}
	for i, c := range c.Columns() {
		n.fields = append(n.fields, newNode(e.children[i], c))
	}
	return n
}

// sameType reports whether the library would write the element's type as it was.
func sameType(t parquet.Type, e *Element) bool {
	if t.Kind() != e.Leaf.Kind || (e.Leaf.fixedLen > 0 && t.Length() != e.Leaf.fixedLen) {
		return false
	}
	lt := t.LogicalType()
	if e.se.LogicalType.Value == nil {
		return lt == nil || e.se.ConvertedType.Valid
	}
	return lt != nil && reflect.DeepEqual(lt.Value, e.se.LogicalType.Value)
}

func physicalType(l *Leaf) parquet.Type {
	switch l.Kind {
	case parquet.Boolean:
		return parquet.BooleanType
	case parquet.Int32:
		return parquet.Int32Type
	case parquet.Int64:
		return parquet.Int64Type
	case parquet.Int96:
		return parquet.Int96Type
	case parquet.Float:
		return parquet.FloatType
	case parquet.Double:
		return parquet.DoubleType
	case parquet.ByteArray:
		return parquet.ByteArrayType
	}
	return parquet.FixedLenByteArrayType(l.fixedLen)
}

// exactType is a physical type with annotations that the library does not know
// (or would change) carried over as they are.
type exactType struct {
	parquet.Type
	se format.SchemaElement
}

func (t exactType) LogicalType() *format.LogicalType {
	if t.se.LogicalType.Value == nil {
		return nil
	}
	return &t.se.LogicalType
}

func (t exactType) ConvertedType() *deprecated.ConvertedType {
	if !t.se.ConvertedType.Valid {
		return nil
	}
	return &t.se.ConvertedType.V
}

// Unordered lists the leaves below n whose values have an order that we do not
// know: they get no minimum and maximum.
func (n *Node) Unordered() [][]string { return n.exactPaths(nil) }

func (n *Node) exactPaths(prefix []string) [][]string {
	var paths [][]string
	for _, f := range n.fields {
		c := f.(*Node)
		path := append(append([]string(nil), prefix...), c.name)
		if c.exact {
			paths = append(paths, path)
		}
		paths = append(paths, c.exactPaths(path)...)
	}
	return paths
}
