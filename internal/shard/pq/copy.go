package pq

import (
	"fmt"
	"slices"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"surprisal/internal/shard/pq/compress"
)

// Copy says which rows of an input are copied to a file of their own.
//
// All columns are copied, of whatever type, without their values being looked
// at: a page whose rows are all kept goes over as it is, compressed; of others
// the values kept are encoded anew, in the input's codec. Row groups keep their
// borders; those without rows are left out. Statistics and page indexes are those of
// the input where whole pages are copied, and made anew for others; what is not certain
// is left out (stats.go).
type Copy struct {
	In   *Table
	Rows *Bitmap // nil: all
	// Beside are files that have other columns of the same rows. Those named by
	// Columns are added behind the input's; every row that is copied must be in one.
	Beside  []Range
	Columns []string
	// BesideOnly leaves the input's columns out and takes all of Beside's; the input
	// gives the row groups' borders.
	BesideOnly bool
	// Arrow is an Arrow schema with the columns that are added.
	Arrow []byte
	// Label adds a text column of that name, null where Value is empty; none
	// when the name is empty.
	Label string
	Value func(row int64) string
	// Metadata is added to the file's key-value metadata, in order.
	Metadata [][2]string
	// Slots bounds the row groups that are in memory, over all Copies at work;
	// each takes one. They are also what runs at once.
	Slots chan struct{}

	footer []byte // the input's, as it is in the file
}

// Range is a file that has rows First to Last of another, as its own from 0 on.
type Range struct {
	Table       *Table
	First, Last int64
}

// columnSource is one leaf of the output and where its entries come from.
type columnSource struct {
	leaf   *Leaf
	path   []string
	codec  format.CompressionCodec
	in     *Leaf  // of the input, or
	beside string // of the files beside it: its top-level column
	nth    int    // and which leaf of it
	order  valueOrder
}

// plan lists the output's schema and columns.
func (c *Copy) plan() (root *Element, cols []columnSource, err error) {
	foot := c.In.foot
	top := &Element{se: foot.schema.se, children: slices.Clone(foot.schema.children)}
	if c.BesideOnly {
		top.children = nil
	}
	codec := format.Zstd
	if len(foot.groups) > 0 && len(foot.groups[0].chunks) > 0 {
		codec = writable(codecOf(&foot.groups[0].chunks[0]))
	}
	eachLeaf(top, nil, func(e *Element, path []string) {
		cols = append(cols, columnSource{leaf: e.Leaf, path: path, in: e.Leaf, order: e.order()})
	})
	add := func(e *Element) error {
		if foot.Has(e.se.Name) && !c.BesideOnly {
			return fmt.Errorf("%w: the input has a column %q of its own", ErrColumn, e.se.Name)
		}
		top.children = append(top.children, e)
		nth := 0
		eachLeaf(e, []string{e.se.Name}, func(l *Element, path []string) {
			cols = append(cols, columnSource{
				leaf: l.Leaf, path: path, codec: codec, beside: e.se.Name, nth: nth, order: l.order(),
			})
			nth++
		})
		return nil
	}
	for _, e := range c.added() {
		if err := add(e); err != nil {
			return nil, nil, err
		}
	}
	if c.Label != "" {
		if err := add(NewElement(c.Label, parquet.ByteArray)); err != nil {
			return nil, nil, err
		}
		cols[len(cols)-1].beside = ""
	}
	top.se.NumChildren.Set(int32(len(top.children)))
	return top, cols, nil
}

// writable is the codec that pages in this one are written anew in.
func writable(codec format.CompressionCodec) format.CompressionCodec {
	if codec == compress.Lz4Hadoop {
		return format.Lz4Raw
	}
	return codec
}

// eachLeaf calls do for the leaves below e, in order, with their paths.
func eachLeaf(e *Element, at []string, do func(*Element, []string)) {
	if e.Leaf != nil {
		do(e, slices.Clone(at))
		return
	}
	for _, k := range e.children {
		eachLeaf(k, append(slices.Clip(at), k.se.Name), do)
	}
}

// added are the columns of Beside that are added.
func (c *Copy) added() []*Element {
	if len(c.Beside) == 0 {
		return nil
	}
	var own []*Element
	for _, e := range c.Beside[0].Table.foot.schema.children {
		if c.BesideOnly || slices.Contains(c.Columns, e.se.Name) {
			own = append(own, e)
		}
	}
	return own
}
