package pq

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"surprisal/internal/shard/pq/compact"
	"surprisal/internal/shard/pq/compress"
)

// Limits on what a footer may make us hold.
const (
	maxRows         = 999_999_999_999 // of a file
	maxFooterBytes  = 128 << 20
	maxSchemaLeaves = 1 << 16
	// The fewest bytes that each can take with what must be in it, so that a
	// list of empty ones does not take far more memory than the footer itself.
	minGroupBytes, minChunkBytes, minKeyValueBytes = 6, 16, 3
	tailBytes                                      = 32 << 10 // read at once from a file's end; most footers fit
)

// Footer is what we use of a parquet file's metadata.
type Footer struct {
	schema  *Element
	leaves  []*Leaf
	Rows    int64
	groups  []rowGroup
	kv      []keyValue
	ordered []bool // bounds of column i are by the order of its type
	size    int64  // of the footer
	// DataEnd is where the footer starts; no page reaches past it.
	DataEnd int64
}

type keyValue struct{ key, value string }

func (f *Footer) Lookup(key string) (string, bool) {
	for _, kv := range f.kv {
		if kv.key == key {
			return kv.value, true
		}
	}
	return "", false
}

// Columns are the top-level ones.
func (f *Footer) Columns() []*Element { return f.schema.children }

// NewFooter stands for a file without row groups that has these columns.
func NewFooter(columns []*Element, rows int64) *Footer {
	f := &Footer{schema: &Element{children: columns}, Rows: rows}
	f.schema.se.Name = "schema"
	return f
}

// RowGroups is the number of row groups.
func (f *Footer) RowGroups() int { return len(f.groups) }

// GroupRows is the number of rows of row group i.
func (f *Footer) GroupRows(i int) int64 { return f.groups[i].rows }

// GroupValues is the number of values that row group i has of a column, nulls among them.
func (f *Footer) GroupValues(i int, l *Leaf) int64 { return f.groups[i].chunks[l.Index].values }

// GroupSize is the size in bytes of a column's pages in row group i, uncompressed.
func (f *Footer) GroupSize(i int, l *Leaf) int64 { return f.groups[i].chunks[l.Index].size() }

// StoredSize is the size in bytes that a column's pages take in the file.
func (f *Footer) StoredSize(l *Leaf) int64 {
	size := int64(0)
	for i := range f.groups {
		size += f.groups[i].chunks[l.Index].compressed
	}
	return size
}

// Chunks is the number of column chunks.
func (f *Footer) Chunks() int { return len(f.groups) * len(f.leaves) }

// Readable reports whether the pages of these columns can be read, so far as the
// footer says.
func (f *Footer) Readable(leaves []*Leaf) error {
	for i := range f.groups {
		for _, l := range leaves {
			c := &f.groups[i].chunks[l.Index]
			if c.encrypted {
				return Corruptf("column %s is encrypted, which is not supported", l.Path)
			}
			if _, ok := compress.MaxRatio[codecOf(c)]; !ok {
				return Corruptf("column %s: compression codec %s is not supported", l.Path, codecOf(c))
			}
			// Compression can't have made more of what the file holds.
			if c.size() > compress.MaxRatio[codecOf(c)]*(c.compressed+64) {
				return Corruptf("row group %d: column %s: claims %d bytes decompress to %d", i, l.Path, c.compressed,
					c.uncompressed)
			}
		}
	}
	return nil
}

type rowGroup struct {
	rows   int64
	first  int64   // row index in the file of the group's first row
	chunks []chunk // one for each leaf
}

// chunk is a column chunk: one leaf's pages in one row group.
type chunk struct {
	codec                  int32
	values                 int64
	uncompressed           int64
	start, end             int64 // byte range of its pages, dictionary included
	indexOffset            int64 // offset index, 0 when there is none
	indexLength            int32
	columnIndexOffset      int64 // 0 when there is none
	columnIndexLength      int32
	statsAt                int32 // of its statistics in the footer, 0 when there are none
	encrypted, elsewhere   bool
	dataOffset, dictOffset int64
	compressed             int64
	hasMeta                bool
	physical               int32
}

// ReadFooter reads and checks the footer of a file of the given size. Errors
// of the bytes wrap ErrCorrupt, those of reading them do not.
func ReadFooter(r io.ReaderAt, size int64) (*Footer, error) {
	const magic, tail = "PAR1", 8
	if size == 0 {
		return nil, Corruptf("the file is empty")
	}
	if size < int64(len(magic))+tail {
		return nil, Corruptf("%d bytes are too few for a parquet file", size)
	}
	buf := make([]byte, min(size, tailBytes))
	if err := ReadFull(r, buf, size-int64(len(buf))); err != nil {
		return nil, err
	}
	end := buf[len(buf)-tail:]
	if string(end[4:]) == "PARE" {
		return nil, Corruptf("the file is encrypted, which is not supported")
	}
	if string(end[4:]) != magic {
		var head [4]byte
		if err := ReadFull(r, head[:], 0); err != nil {
			return nil, err
		}
		if string(head[:]) == magic {
			return nil, Corruptf("the file is truncated: it begins as parquet but has no footer")
		}
		return nil, Corruptf("not a parquet file")
	}
	n := int64(binary.LittleEndian.Uint32(end))
	if n > size-tail-int64(len(magic)) {
		return nil, Corruptf("the footer claims %d bytes of a file of %d", n, size)
	}
	if n > maxFooterBytes {
		return nil, Corruptf("the footer has %d bytes, more than the %d supported", n, maxFooterBytes)
	}
	if int64(len(buf)) < n+tail {
		whole := make([]byte, n+tail)
		have := copy(whole[len(whole)-len(buf):], buf)
		if err := ReadFull(r, whole[:len(whole)-have], size-n-tail); err != nil {
			return nil, err
		}
		buf = whole
	}
	f, err := parseFooter(buf[int64(len(buf))-n-tail : len(buf)-tail])
	if err != nil {
		return nil, err
	}
	f.DataEnd, f.size = size-tail-n, n
	if err := f.check(); err != nil {
		return nil, err
	}
	return f, nil
}

func parseFooter(b []byte) (*Footer, error) {
	f := &Footer{}
	r := &compact.Reader{B: b}
	var elems []format.SchemaElement
	var err error
	encrypted := false
	r.Struct(func(id int16, typ byte) bool {
		switch id {
		case 2:
			elems, err = parseSchemaElements(r, typ)
			if err != nil {
				r.Fail(err)
			}
		case 3:
			if r.Want(typ, compact.I64) {
				f.Rows = r.Int64()
			}
		case 4:
			f.parseGroups(r, typ)
		case 5:
			f.parseKV(r, typ)
		case 7:
			f.parseOrders(r, typ)
		case 8: // encryption_algorithm: a plain footer over encrypted columns
			encrypted = true
			return false
		default:
			return false
		}
		return true
	})
	if r.Err != nil {
		return nil, Corruptf("footer: %w", r.Err)
	}
	if f.schema, f.leaves, err = buildSchema(elems); err != nil {
		return nil, err
	}
	if encrypted {
		for i := range f.groups {
			for j := range f.groups[i].chunks {
				if c := &f.groups[i].chunks[j]; !c.hasMeta {
					c.encrypted = true
				}
			}
		}
	}
	return f, nil
}

// parseSchemaElements finds each element's bytes and has the library's decoder
// read that alone: skip has then checked its depth, and it holds no lists.
func parseSchemaElements(r *compact.Reader, typ byte) ([]format.SchemaElement, error) {
	if !r.Want(typ, compact.List) {
		return nil, r.Err
	}
	n, et := r.List()
	if n > 0 {
		r.Want(et, compact.Struct)
	}
	var elems []format.SchemaElement
	for k := 0; k < n && r.Err == nil; k++ {
		from := r.At
		r.Skip(compact.Struct, 0)
		if r.Err != nil {
			break
		}
		if len(elems) > 2*maxSchemaLeaves {
			return nil, fmt.Errorf("the schema has too many elements (%d)", n)
		}
		var e format.SchemaElement
		if err := Recovered(func() error {
			return thrift.Unmarshal(new(thrift.CompactProtocol), r.B[from:r.At], &e)
		}); err != nil {
			return nil, fmt.Errorf("schema element %d: %w", k, err)
		}
		elems = append(elems, e)
	}
	return elems, r.Err
}

func (f *Footer) parseGroups(r *compact.Reader, typ byte) {
	if !r.Want(typ, compact.List) {
		return
	}
	n, et := r.List()
	if n > 0 && !r.Want(et, compact.Struct) {
		return
	}
	for k := 0; k < n && r.Err == nil; k++ {
		g, from := rowGroup{}, r.At
		r.Struct(func(id int16, typ byte) bool {
			switch id {
			case 1:
				g.chunks = parseChunks(r, typ)
			case 3:
				if r.Want(typ, compact.I64) {
					g.rows = r.Int64()
				}
			default:
				return false
			}
			return true
		})
		r.AtLeast(minGroupBytes, from)
		f.groups = append(f.groups, g)
	}
}

func parseChunks(r *compact.Reader, typ byte) []chunk {
	if !r.Want(typ, compact.List) {
		return nil
	}
	n, et := r.List()
	if n > 0 && !r.Want(et, compact.Struct) {
		return nil
	}
	var chunks []chunk
	for k := 0; k < n && r.Err == nil; k++ {
		c, from := chunk{}, r.At
		r.Struct(func(id int16, typ byte) bool {
			switch id {
			case 1: // file_path: the pages are in another file
				r.Want(typ, compact.Binary)
				c.elsewhere = len(r.Bytes()) > 0
			case 3:
				if r.Want(typ, compact.Struct) {
					c.parseMeta(r)
				}
			case 4:
				r.Want(typ, compact.I64)
				c.indexOffset = r.Int64()
			case 5:
				r.Want(typ, compact.I32)
				c.indexLength = r.Int32()
			case 6:
				r.Want(typ, compact.I64)
				c.columnIndexOffset = r.Int64()
			case 7:
				r.Want(typ, compact.I32)
				c.columnIndexLength = r.Int32()
			case 8, 9:
				c.encrypted = true
				return false
			default:
				return false
			}
			return true
		})
		r.AtLeast(minChunkBytes, from)
		chunks = append(chunks, c)
	}
	return chunks
}

func (c *chunk) parseMeta(r *compact.Reader) {
	c.hasMeta = true
	r.Struct(func(id int16, typ byte) bool {
		switch id {
		case 1, 4:
			r.Want(typ, compact.I32)
			if v := r.Int32(); id == 1 {
				c.physical = v
			} else {
				c.codec = v
			}
		case 5, 6, 7, 9, 11:
			r.Want(typ, compact.I64)
			v := r.Int64()
			switch id {
			case 5:
				c.values = v
			case 6:
				c.uncompressed = v
			case 7:
				c.compressed = v
			case 9:
				c.dataOffset = v
			case 11:
				c.dictOffset = v
			}
		case 12:
			c.statsAt = int32(r.At)
			return false
		default:
			return false
		}
		return true
	})
}

// parseOrders reads for each column whether its bounds are by the order of its type.
func (f *Footer) parseOrders(r *compact.Reader, typ byte) {
	if !r.Want(typ, compact.List) {
		return
	}
	n, et := r.List()
	for k := 0; k < n && r.Err == nil && r.Want(et, compact.Struct); k++ {
		byType := false
		r.Struct(func(id int16, typ byte) bool {
			byType = id == 1
			return false
		})
		f.ordered = append(f.ordered, byType)
	}
}

func (f *Footer) parseKV(r *compact.Reader, typ byte) {
	if !r.Want(typ, compact.List) {
		return
	}
	n, et := r.List()
	if n > 0 && !r.Want(et, compact.Struct) {
		return
	}
	for k := 0; k < n && r.Err == nil; k++ {
		kv, from := keyValue{}, r.At
		r.Struct(func(id int16, typ byte) bool {
			if (id != 1 && id != 2) || typ != compact.Binary {
				return false
			}
			if id == 1 {
				kv.key = r.String()
			} else {
				kv.value = r.String()
			}
			return true
		})
		r.AtLeast(minKeyValueBytes, from)
		f.kv = append(f.kv, kv)
	}
}

// check holds the numbers against each other and the file's size.
func (f *Footer) check() error {
	sum := int64(0)
	for i := range f.groups {
		g := &f.groups[i]
		if g.rows < 0 || g.rows > maxRows || sum > maxRows-g.rows {
			return Corruptf("row group %d: %d rows", i, g.rows)
		}
		g.first = sum
		sum += g.rows
		if len(g.chunks) != len(f.leaves) {
			return Corruptf("row group %d: %d column chunks for %d columns", i, len(g.chunks), len(f.leaves))
		}
		for j := range g.chunks {
			c := &g.chunks[j]
			if c.encrypted || c.elsewhere {
				continue // an error only when it is read
			}
			if err := c.check(f.leaves[j], g.rows, f.DataEnd); err != nil {
				return fmt.Errorf("row group %d: column %s: %w", i, f.leaves[j].Path, err)
			}
		}
	}
	if f.Rows != sum {
		return Corruptf("the footer claims %d rows, its row groups %d", f.Rows, sum)
	}
	return nil
}

func (c *chunk) check(l *Leaf, rows, dataEnd int64) error {
	if !c.hasMeta {
		return Corruptf("no metadata")
	}
	c.start = c.dataOffset
	if c.dictOffset > 0 && c.dictOffset < c.start {
		c.start = c.dictOffset
	}
	if c.compressed < 0 || c.uncompressed < 0 || c.values < 0 {
		return Corruptf("negative sizes")
	}
	if rows == 0 && c.compressed == 0 {
		c.start, c.end = 4, 4
		return nil
	}
	if c.start < 4 || c.start > dataEnd || c.compressed > dataEnd-c.start {
		return Corruptf("its pages (%d bytes at %d) are outside the file", c.compressed, c.start)
	}
	c.end = c.start + c.compressed
	if l.MaxRep == 0 && c.values != rows {
		return Corruptf("%d values for %d rows", c.values, rows)
	}
	if l.MaxRep > 0 && c.values < rows {
		return Corruptf("%d values for %d rows", c.values, rows)
	}
	if c.physical != int32(l.Kind) {
		return Corruptf("physical type %d, the schema has %d", c.physical, l.Kind)
	}
	if c.indexOffset < 0 || c.indexLength < 0 || c.indexOffset > math.MaxInt64-int64(c.indexLength) ||
		c.indexOffset+int64(c.indexLength) > dataEnd {
		c.indexOffset = 0 // an index only helps to seek
	}
	if c.columnIndexOffset < 0 || c.columnIndexLength < 0 || c.columnIndexOffset > dataEnd-int64(c.columnIndexLength) {
		c.columnIndexOffset = 0
	}
	return nil
}
