package pq

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"slices"
	"sync"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"surprisal/internal/shard/pq/compress"
	"surprisal/internal/shard/pq/decode"
)

// A page that is made anew ends at whichever comes first.
const (
	newPageBytes   = 1 << 20
	newPageEntries = 1 << 17
)

// chunkWriter writes one leaf's pages of one row group: whole pages as they
// were, and pages made of the entries taken from others.
type chunkWriter struct {
	leaf  *Leaf
	codec format.CompressionCodec
	out   io.Writer

	*pageBuffers // until the chunk's last page is flushed
	v2           bool
	entries      int
	rows         int
	nulls        int

	// The dictionary being made: of the values that are used, in order of use.
	dict    []byte
	dictN   int
	dictEnd []uint32 // where its values end, if they are of any length
	// Or the source's dictionary, copied as it is in front of the other pages.
	rawDict      bool
	rawDictBytes int64

	order  valueOrder
	pages  []pageNote
	source bounds // of the input's chunk, and
	whole  bool   // all rows of it are copied
	// rowsUnknown: a page may begin inside a row, so that there is no index.
	rowsUnknown bool
	firstRow    int64 // of the next page

	encodings    []format.Encoding
	values       int64
	size         int64 // bytes written
	uncompressed int64
	rleEnc       rle.Encoding
}

// pageBuffers is what pages are read and made in. A row group's columns use it one
// after another, and then the next row group's.
type pageBuffers struct {
	// The page being made: its levels, and its values PLAIN (a bool a byte) or
	// as indices of the new dictionary.
	rep, def []uint8
	plain    []byte
	index    []int32
	// The new dictionary's indices by the source's, one more than they are; 0
	// for a value that is not in it yet.
	newOf []int32
	// The page in its parts.
	body, packed, levels, indices []byte
	memory                        columnBuffers
}

var pageBuffersPool = sync.Pool{New: func() any { return new(pageBuffers) }}

// give lets the next user have the buffers, unless one has become huge.
func (b *pageBuffers) give() {
	const most = 16 << 20
	if cap(b.plain)+cap(b.body)+cap(b.packed)+4*cap(b.newOf)+cap(b.memory.raw)+cap(b.memory.page) < most {
		pageBuffersPool.Put(b)
	}
}

// begin empties them for a chunk.
func (b *pageBuffers) begin() *pageBuffers {
	b.rep, b.def, b.plain, b.index, b.newOf = b.rep[:0], b.def[:0], b.plain[:0], b.index[:0], b.newOf[:0]
	return b
}

// isDict reports whether values of this encoding are indices of a dictionary.
func isDict(e format.Encoding) bool {
	//lint:ignore SA1019 older writers name it, so files have it
	return e == format.PlainDictionary || e == format.RLEDictionary
}

func (w *chunkWriter) uses(e format.Encoding) {
	if !slices.Contains(w.encodings, e) {
		w.encodings = append(w.encodings, e)
	}
}

// copyPage writes a page as it was; rows is -1 when nobody knows how many it has.
func (w *chunkWriter) copyPage(h pageHeader, header, body []byte, rows int64, known bounds) error {
	if err := w.flush(); err != nil {
		return err
	}
	if w.leaf.MaxDef == 0 {
		known.nulls = 0
	}
	w.note(len(header)+len(body), rows, known)
	w.uses(h.enc)
	w.values += int64(h.values)
	return w.write(header, body, int64(h.uncompressed))
}

// note adds the next page, of size bytes, to the indexes.
func (w *chunkWriter) note(size int, rows int64, b bounds) {
	if rows <= 0 {
		w.rowsUnknown = true
	}
	w.pages = append(w.pages, pageNote{off: w.size - w.rawDictBytes, size: int32(size), firstRow: w.firstRow,
		bounds: b})
	w.firstRow += rows
}

func (w *chunkWriter) write(header, body []byte, uncompressed int64) error {
	w.size += int64(len(header) + len(body))
	w.uncompressed += int64(len(header)) + uncompressed
	if _, err := w.out.Write(header); err != nil {
		return err
	}
	_, err := w.out.Write(body)
	return err
}

// take adds entries [a, b) of the page that c holds; their values are those
// from valA. They begin with the first entry of a row.
func (w *chunkWriter) take(c *Column, h pageHeader, a, b, valA int) (valB int, err error) {
	dict, v2 := isDict(h.enc), h.typ == pageDataV2
	if w.entries > 0 && (w.v2 != v2 || (len(w.index) > 0 && !dict) || (len(w.plain) > 0 && dict) || w.full() ||
		len(w.plain)+len(c.vals.Data) > decode.MaxBytes/2) {
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	if w.entries == 0 && b > a && c.rep != nil && c.rep[a] != 0 {
		w.rowsUnknown = true
	}
	w.v2 = v2
	w.entries += b - a
	valB = valA + b - a
	if c.def != nil {
		w.def = append(w.def, c.def[a:b]...)
		valB = valA
		for _, d := range c.def[a:b] {
			if d == c.Leaf.MaxDef {
				valB++
			}
		}
		w.nulls += b - a - (valB - valA)
	}
	if c.rep != nil {
		w.rep = append(w.rep, c.rep[a:b]...)
		for _, r := range c.rep[a:b] {
			if r == 0 {
				w.rows++
			}
		}
	} else {
		w.rows += b - a
	}
	v := &c.vals
	switch {
	case valA == valB:
	case dict:
		w.takeIndices(v, valA, valB)
	case v.Spans == nil:
		w.plain = append(w.plain, v.Data[valA*v.Width:valB*v.Width]...)
	case h.enc == format.Plain: // their lengths lie between them already
		last := v.Spans[valB-1]
		w.plain = append(w.plain, v.Data[v.Spans[valA].Off-4:last.Off+last.Len]...)
	default:
		for _, s := range v.Spans[valA:valB] {
			w.plain = binary.LittleEndian.AppendUint32(w.plain, s.Len)
			w.plain = append(w.plain, v.Data[s.Off:s.Off+s.Len]...)
		}
	}
	return valB, nil
}

func (w *chunkWriter) takeIndices(v *decode.Vector, from, to int) {
	if len(w.newOf) == 0 { // a chunk has one dictionary
		w.newOf = slices.Grow(w.newOf, v.Dict.N)[:v.Dict.N]
		clear(w.newOf)
	}
	for _, old := range v.Index[from:to] {
		i := w.newOf[old]
		if i == 0 {
			w.dictN++
			i = int32(w.dictN)
			w.newOf[old] = i
			b := v.Dict.At(int(old))
			if v.Dict.Spans != nil {
				w.dict = binary.LittleEndian.AppendUint32(w.dict, uint32(len(b)))
			}
			w.dict = append(w.dict, b...)
			w.dictEnd = append(w.dictEnd, uint32(len(w.dict)))
		}
		w.index = append(w.index, i-1)
	}
}

// add adds one entry that comes from no page; val is PLAIN (a bool a byte).
func (w *chunkWriter) add(e Entry) error {
	if e.Rep == 0 && w.full() {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.entries++
	if e.Rep == 0 {
		w.rows++
	}
	if w.leaf.MaxRep > 0 {
		w.rep = append(w.rep, e.Rep)
	}
	if w.leaf.MaxDef > 0 {
		w.def = append(w.def, e.Def)
	}
	if e.Def < w.leaf.MaxDef {
		w.nulls++
		return nil
	}
	if w.leaf.Kind == parquet.ByteArray {
		w.plain = binary.LittleEndian.AppendUint32(w.plain, uint32(len(e.Val)))
	}
	w.plain = append(w.plain, e.Val...)
	return nil
}

func (w *chunkWriter) full() bool {
	return len(w.plain) >= newPageBytes || w.entries >= newPageEntries
}

// flush writes the page being made.
func (w *chunkWriter) flush() error {
	if w.entries == 0 {
		return nil
	}
	enc := format.Plain
	w.body = w.body[:0]
	var repBytes, defBytes int
	var err error
	if repBytes, err = w.appendLevels(w.rep, w.leaf.MaxRep); err != nil {
		return err
	}
	if defBytes, err = w.appendLevels(w.def, w.leaf.MaxDef); err != nil {
		return err
	}
	levels := len(w.body)
	switch {
	case len(w.index) > 0:
		enc = format.RLEDictionary
		// A width of 0 is allowed, but not every reader knows.
		w.rleEnc.BitWidth = max(1, bits.Len32(uint32(slices.Max(w.index))))
		if w.indices, err = w.rleEnc.EncodeInt32(w.indices, w.index); err != nil {
			return fmt.Errorf("encode indices: %w", err)
		}
		w.body = append(append(w.body, byte(w.rleEnc.BitWidth)), w.indices...)
	case w.leaf.Kind == parquet.Boolean:
		at := len(w.body)
		w.body = append(w.body, make([]byte, (len(w.plain)+7)/8)...)
		for i, b := range w.plain {
			w.body[at+i/8] |= b << (i % 8)
		}
	default:
		w.body = append(w.body, w.plain...)
	}
	h := format.PageHeader{UncompressedPageSize: int32(len(w.body))}
	if w.v2 {
		w.packed = append(w.packed[:0], w.body[:levels]...)
		w.packed, err = compress.Append(w.codec, w.packed, w.body[levels:])
		v2 := format.DataPageHeaderV2{
			NumValues: int32(w.entries), NumNulls: int32(w.nulls), NumRows: int32(w.rows), Encoding: enc,
			RepetitionLevelsByteLength: int32(repBytes), DefinitionLevelsByteLength: int32(defBytes),
		}
		v2.IsCompressed.Set(w.codec != format.Uncompressed)
		h.Type = format.DataPageV2
		h.DataPageHeaderV2.Set(v2)
	} else {
		w.packed, err = compress.Append(w.codec, w.packed[:0], w.body)
		h.Type = format.DataPage
		h.DataPageHeader.Set(format.DataPageHeader{
			NumValues: int32(w.entries), Encoding: enc, DefinitionLevelEncoding: format.RLE,
			RepetitionLevelEncoding: format.RLE,
		})
	}
	if err != nil {
		return fmt.Errorf("compress a page: %w", err)
	}
	w.uses(enc)
	known, rows, from := w.madeBounds(), int64(w.rows), w.size
	if err := w.page(&h, w.packed, w.out); err != nil {
		return err
	}
	size := w.size - from
	w.size = from
	w.note(int(size), rows, known)
	w.size += size
	w.values += int64(w.entries)
	w.rep, w.def, w.plain, w.index = w.rep[:0], w.def[:0], w.plain[:0], w.index[:0]
	w.entries, w.rows, w.nulls = 0, 0, 0
	return nil
}

// madeBounds finds the bounds of the page being made.
func (w *chunkWriter) madeBounds() bounds {
	m := boundsMaker{order: w.order}
	values := len(w.index)
	switch width := kindWidth(w.leaf); {
	case values > 0:
		w.addUsed(&m)
	case w.leaf.Kind == parquet.ByteArray:
		for at := 0; at < len(w.plain); values++ {
			n := int(binary.LittleEndian.Uint32(w.plain[at:]))
			m.add(w.plain[at+4 : at+4+n])
			at += 4 + n
		}
	case width > 0:
		for at := 0; at < len(w.plain); at += width {
			m.add(w.plain[at : at+width])
			values++
		}
	}
	return m.bounds(values, int64(w.nulls))
}

// addUsed shows m the values of the new dictionary that the page has, each once.
func (w *chunkWriter) addUsed(m *boundsMaker) {
	seen := make([]uint64, (w.dictN+63)/64)
	prefix := 0
	if w.leaf.Kind == parquet.ByteArray {
		prefix = 4
	}
	for _, i := range w.index {
		if seen[i>>6]>>(i&63)&1 == 1 {
			continue
		}
		seen[i>>6] |= 1 << (i & 63)
		from := uint32(0)
		if i > 0 {
			from = w.dictEnd[i-1]
		}
		m.add(w.dict[from+uint32(prefix) : w.dictEnd[i]])
	}
}

// appendLevels appends levels to the body and says how many bytes they take.
func (w *chunkWriter) appendLevels(l []uint8, highest uint8) (int, error) {
	if highest == 0 {
		return 0, nil
	}
	w.rleEnc.BitWidth = int(decode.LevelWidth(highest))
	var err error
	if w.levels, err = w.rleEnc.EncodeLevels(w.levels[:0], l); err != nil {
		return 0, fmt.Errorf("encode levels: %w", err)
	}
	if !w.v2 {
		w.body = binary.LittleEndian.AppendUint32(w.body, uint32(len(w.levels)))
	}
	w.body = append(w.body, w.levels...)
	return len(w.levels), nil
}

// page writes a page that is made anew.
func (w *chunkWriter) page(h *format.PageHeader, body []byte, out io.Writer) error {
	h.CompressedPageSize = int32(len(body))
	h.CRC = int32(crc32.ChecksumIEEE(body))
	header, err := thrift.Marshal(new(thrift.CompactProtocol), h)
	if err != nil {
		return fmt.Errorf("page header: %w", err)
	}
	to := w.out
	w.out = out
	defer func() { w.out = to }()
	return w.write(header, body, int64(h.UncompressedPageSize))
}

// dictionaryTo writes the dictionary that was made, which goes before the
// other pages.
func (w *chunkWriter) dictionaryTo(out io.Writer) error {
	if w.dictN == 0 {
		return nil
	}
	body, err := compress.Append(w.codec, nil, w.dict)
	if err != nil {
		return fmt.Errorf("compress a dictionary: %w", err)
	}
	h := format.PageHeader{Type: format.DictionaryPage, UncompressedPageSize: int32(len(w.dict))}
	h.DictionaryPageHeader.Set(format.DictionaryPageHeader{NumValues: int32(w.dictN), Encoding: format.Plain})
	w.uses(format.Plain)
	return w.page(&h, body, out)
}
