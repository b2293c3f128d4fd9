package shard

import (
	"unsafe"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/score"
	"surprisal/internal/shard/pq"
	"surprisal/internal/shard/pq/arrow"
)

// Kept are one row's values of the kept columns.
type Kept struct {
	values []parquet.Value // leaf by leaf, with levels
	bytes  int             // that the values point to
}

// Size is about how much memory the values take, for callers that hold many rows.
func (k Kept) Size() int { return len(k.values)*int(unsafe.Sizeof(parquet.Value{})) + k.bytes }

// Columns are the kept columns' types, as the input has them.
type Columns struct {
	elements []*pq.Element
	leaves   []*pq.Leaf
	// arrow is the input's ARROW:schema, empty when it has none, and names are
	// all of the input's top-level columns: Arrow's schema is in their order.
	arrow string
	names []string
}

func newColumns(foot *pq.Footer, o score.Options) (*Columns, error) {
	c := &Columns{}
	var err error
	if c.elements, err = keptElements(foot, o.Keep, o.Columns()); err != nil {
		return nil, err
	}
	for _, e := range c.elements {
		c.leaves = e.AppendLeaves(c.leaves)
	}
	c.arrow, _ = foot.Lookup(arrow.SchemaKey)
	for _, e := range foot.Columns() {
		c.names = append(c.names, e.Name())
	}
	return c, nil
}

// textLeaf finds the text column and checks that it holds text.
func textLeaf(f *pq.Footer, name string) (*pq.Leaf, error) {
	e, err := f.Field(name)
	if err != nil {
		return nil, err
	}
	if !e.IsText() {
		return nil, f.ColumnErr("text column %q is of type %s, it must be a string or binary column", name,
			e.TypeName(0))
	}
	return e.Leaf, nil
}

// findTexts finds the text column; in a conditional run the target's and the
// context's.
func findTexts(f *pq.Footer, o score.Options) ([]*pq.Leaf, error) {
	names := []string{o.TextColumn}
	if o.Conditional() {
		names = []string{o.TargetColumn, o.ContextColumn}
	}
	var leaves []*pq.Leaf
	for _, name := range names {
		l, err := textLeaf(f, name)
		if err != nil {
			return nil, err
		}
		leaves = append(leaves, l)
	}
	return leaves, nil
}

// idsColumn is a column of lists of token ids.
type idsColumn struct {
	leaf     *pq.Leaf
	listDef  uint8 // definition level of a list that is there, empty or not
	unsigned bool
}

func findIDs(f *pq.Footer, name string) (*idsColumn, error) {
	e, err := f.Field(name)
	if err != nil {
		return nil, err
	}
	el := e.ListElement()
	unsigned, ok := false, false
	if el != nil {
		unsigned, ok = el.IsInteger()
	}
	if !ok || el.Leaf.MaxRep != 1 {
		return nil, f.ColumnErr("ids column %q is of type %s, it must be a list of int32 or int64", name, e.TypeName(0))
	}
	c := &idsColumn{leaf: el.Leaf, listDef: e.MaxDef, unsigned: unsigned}
	if e.Repeated() { // its own level is its elements'
		c.listDef--
	}
	return c, nil
}

// keptElements are the columns that keep names: nil is "id, if it is there",
// ["*"] is all. own are the output's own columns, which they must not clash with.
func keptElements(f *pq.Footer, keep, own []string) ([]*pq.Element, error) {
	clash := func(name string) bool {
		for _, o := range own {
			if o == name {
				return true
			}
		}
		return false
	}
	switch {
	case keep == nil:
		if !f.Has("id") {
			return nil, nil
		}
		keep = []string{"id"}
	case len(keep) == 1 && keep[0] == "*":
		keep = nil
		for _, c := range f.Columns() {
			if clash(c.Name()) {
				return nil, f.ColumnErr("the output has a column %q of its own, so not all columns can be kept: "+
					"name the columns to keep", c.Name())
			}
			keep = append(keep, c.Name())
		}
	}
	var kept []*pq.Element
	for _, name := range keep {
		if clash(name) {
			return nil, f.ColumnErr("column %q can't be kept: the output has a column of this name", name)
		}
		e, err := f.Top(name)
		if err != nil {
			return nil, err
		}
		kept = append(kept, e)
	}
	return kept, nil
}
