package pq

import (
	"io"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"surprisal/internal/shard/pq/compact"
)

// pageNote is what the indexes of a copy say of one of its pages.
type pageNote struct {
	off      int64 // in its chunk's pages
	size     int32
	firstRow int64
	bounds
}

// claims is what a file says of the values of one chunk.
type claims struct {
	chunk bounds
	pages map[int64]bounds // by the page's offset in the file
}

// claims reads what the input says of a chunk: its statistics from the footer's bytes, its
// pages' from its indexes. What is not there, or makes no sense, is unknown. Bounds
// count only where the footer says that they are by the order of the type.
func (f *Footer) claims(file io.ReaderAt, c *chunk, l *Leaf, o valueOrder, footer []byte) (claims, error) {
	out := claims{chunk: unknown}
	ordered := l.Index < len(f.ordered) && f.ordered[l.Index]
	if c.statsAt > 0 && int(c.statsAt) < len(footer) {
		r := &compact.Reader{B: footer, At: int(c.statsAt)}
		if b := parseStatistics(r); r.Err == nil {
			out.chunk = b
		}
		if out.chunk.nulls > c.values {
			out.chunk.nulls = -1
		}
		if !ordered || !out.chunk.fits(l, o) {
			out.chunk.min, out.chunk.max = nil, nil
		}
	}
	whole := out.chunk
	out.chunk.cut(o)
	if !ordered || o == noOrder {
		return out, nil
	}
	offsets, err := readPageOffsets(file, c)
	if err != nil {
		return out, err
	}
	pages, err := readColumnIndex(file, c)
	if err != nil || len(offsets) != len(pages) || !covers(pages, whole, l, o) {
		return out, err
	}
	out.pages = map[int64]bounds{}
	for i, b := range pages {
		b.cut(o)
		out.pages[offsets[i]] = b
	}
	return out, nil
}

// covers reports whether pages' bounds fit their column and come to at least the chunk's.
// parquet-go writes zeros for columns whose bounds it is set to skip, and cuts some
// maxima below the values; neither agrees with the chunk's statistics.
func covers(pages []bounds, chunk bounds, l *Leaf, o valueOrder) bool {
	all := bounds{empty: true}
	for _, b := range pages {
		if !b.empty && !b.fits(l, o) {
			return false
		}
		all = all.merge(b, o)
	}
	if all.empty {
		return chunk.min == nil && chunk.max == nil
	}
	return chunk.min != nil && chunk.max != nil && o.compare(all.min, chunk.min) <= 0 &&
		o.compare(all.max, chunk.max) >= 0
}

const maxIndexBytes = 16 << 20

func readIndex(file io.ReaderAt, off int64, n int32) (*compact.Reader, error) {
	if off <= 0 || n <= 0 || n > maxIndexBytes {
		return &compact.Reader{}, nil
	}
	b := make([]byte, n)
	if err := ReadFull(file, b, off); err != nil {
		return nil, err
	}
	return &compact.Reader{B: b}, nil
}

// readPageOffsets gives where the data pages of a chunk begin, by its offset index.
func readPageOffsets(file io.ReaderAt, c *chunk) ([]int64, error) {
	r, err := readIndex(file, c.indexOffset, c.indexLength)
	if err != nil {
		return nil, err
	}
	var offsets []int64
	r.Struct(func(id int16, typ byte) bool {
		if id != 1 || typ != compact.List {
			return false
		}
		n, et := r.List()
		for k := 0; k < n && r.Err == nil && r.Want(et, compact.Struct); k++ {
			off, from := int64(0), r.At
			r.Struct(func(id int16, typ byte) bool {
				if id != 1 || typ != compact.I64 {
					return false
				}
				off = r.Int64()
				return true
			})
			r.AtLeast(3, from)
			offsets = append(offsets, off)
		}
		return true
	})
	if r.Err != nil {
		return nil, nil // the pages are then unknown
	}
	return offsets, nil
}

// readColumnIndex gives the bounds of a chunk's pages, none of them exact.
func readColumnIndex(file io.ReaderAt, c *chunk) ([]bounds, error) {
	r, err := readIndex(file, c.columnIndexOffset, c.columnIndexLength)
	if err != nil {
		return nil, err
	}
	var pages []bounds
	list := func(elem byte, set func(b *bounds)) bool {
		n, et := r.List()
		if n > 0 && et != elem && !(elem == compact.True && et == compact.False) {
			r.Fail(compact.ErrBad)
		}
		for k := 0; k < n && r.Err == nil; k++ {
			if k == len(pages) {
				pages = append(pages, unknown)
			}
			set(&pages[k])
		}
		return true
	}
	r.Struct(func(id int16, typ byte) bool {
		switch {
		case id == 1 && typ == compact.List:
			return list(compact.True, func(b *bounds) { b.empty = r.Byte() == compact.True })
		case id == 2 && typ == compact.List:
			return list(compact.Binary, func(b *bounds) { b.min = append([]byte{}, r.Bytes()...) })
		case id == 3 && typ == compact.List:
			return list(compact.Binary, func(b *bounds) { b.max = append([]byte{}, r.Bytes()...) })
		case id == 5 && typ == compact.List:
			return list(compact.I64, func(b *bounds) { b.nulls = max(r.Int64(), -1) })
		}
		return false
	})
	if r.Err != nil {
		return nil, nil
	}
	for i := range pages {
		if pages[i].empty {
			pages[i].min, pages[i].max = nil, nil
		}
	}
	return pages, nil
}

// offsetIndex is the index of a chunk whose pages begin at off in the file; nil when a
// page is not known to begin with a row.
func (w *chunkWriter) offsetIndex(off int64) *format.OffsetIndex {
	if w.rowsUnknown || len(w.pages) == 0 {
		return nil
	}
	index := &format.OffsetIndex{}
	for _, p := range w.pages {
		index.PageLocations = append(index.PageLocations, format.PageLocation{
			Offset: off + p.off, CompressedPageSize: p.size, FirstRowIndex: p.firstRow,
		})
	}
	return index
}

// wireColumnIndex is format.ColumnIndex, without null counts if some are unknown.
type wireColumnIndex struct {
	NullPages     []bool               `thrift:"1,required"`
	MinValues     [][]byte             `thrift:"2,required"`
	MaxValues     [][]byte             `thrift:"3,required"`
	BoundaryOrder format.BoundaryOrder `thrift:"4,required"`
	NullCounts    thrift.Slice[int64]  `thrift:"5,optional"`
}

// columnIndex is the index of a chunk; nil when bounds of a page are unknown.
func (w *chunkWriter) columnIndex() *wireColumnIndex {
	if w.rowsUnknown || len(w.pages) == 0 {
		return nil
	}
	index, counted := &wireColumnIndex{}, true
	for i := range w.pages {
		p := &w.pages[i]
		if !p.empty && (p.min == nil || p.max == nil) {
			return nil
		}
		index.NullPages = append(index.NullPages, p.empty)
		index.MinValues, index.MaxValues = append(index.MinValues, p.min), append(index.MaxValues, p.max)
		index.NullCounts = append(index.NullCounts, p.nulls)
		counted = counted && p.nulls >= 0
	}
	if !counted {
		index.NullCounts = nil
	}
	index.BoundaryOrder = w.boundaryOrder()
	return index
}

func (w *chunkWriter) boundaryOrder() format.BoundaryOrder {
	up, down := true, true
	var last *pageNote
	for i := range w.pages {
		p := &w.pages[i]
		if p.empty {
			continue
		}
		if last != nil {
			least, most := w.order.compare(last.min, p.min), w.order.compare(last.max, p.max)
			up, down = up && least <= 0 && most <= 0, down && least >= 0 && most >= 0
		}
		last = p
	}
	switch {
	case w.order == noOrder:
		return format.Unordered
	case up:
		return format.Ascending
	case down:
		return format.Descending
	}
	return format.Unordered
}

// statistics are what is certain of the chunk: what its pages' bounds come to, else what
// the input says, whose bounds hold for some of its rows too.
func (w *chunkWriter) statistics() bounds {
	in, all := w.source, w.whole
	b := bounds{empty: true}
	for _, p := range w.pages {
		b = b.merge(p.bounds, w.order)
	}
	if len(w.pages) == 0 {
		b = unknown
	}
	if w.leaf.MaxDef == 0 {
		b.nulls = 0
	}
	if w.leaf.MaxRep > 0 {
		b.nulls = -1 // writers count the nulls of lists in different ways
	}
	if all && b.nulls < 0 {
		b.nulls = in.nulls
	}
	if all && in.min != nil && in.max != nil && !(b.minExact && b.maxExact) {
		b.min, b.max, b.minExact, b.maxExact = in.min, in.max, in.minExact, in.maxExact
	}
	if b.empty { // nulls alone
		return b
	}
	if b.min == nil { // of more rows
		b.min, b.minExact = in.min, false
	}
	if b.max == nil {
		b.max, b.maxExact = in.max, false
	}
	return b
}
