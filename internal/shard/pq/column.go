package pq

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go/format"

	"surprisal/internal/shard/pq/compress"
	"surprisal/internal/shard/pq/decode"
)

// Column reads one leaf's values from a row on, page by page across row
// groups, and holds one page at a time.
type Column struct {
	ctx  context.Context // of the whole read: rows are read one by one, across calls
	file io.ReaderAt
	foot *Footer
	Leaf *Leaf

	group int   // the row group being read, len(foot.groups) at the end
	left  int64 // rows of the group that are still to come
	skip  int64 // rows of the group to pass over first

	chunk *chunk
	win   window
	off   int64 // the next page's header
	dict  *decode.Vector

	// The page: levels (nil when the leaf has none), values, and positions.
	rep, def       []uint8
	vals           decode.Vector
	entries        int
	at, valAt      int
	raw, page      []byte // its bytes, compressed and not; used again
	repBuf, defBuf []uint8

	values int64 // entries of the chunk seen so far
	dead   error // what ended the reading
}

// Entry is one value of a row, or one null.
type Entry struct {
	Rep, Def uint8
	Val      []byte // nil unless def is the leaf's highest; valid until the next entry
}

func NewColumn(ctx context.Context, file io.ReaderAt, foot *Footer, l *Leaf, row int64) *Column {
	c := &Column{ctx: ctx, file: file, foot: foot, Leaf: l, group: -1}
	g := 0
	for g < len(foot.groups) && row >= foot.groups[g].first+foot.groups[g].rows {
		g++
	}
	c.group = g - 1
	if g < len(foot.groups) {
		c.skip = row - foot.groups[g].first
	}
	return c
}

// columnBuffers is a column's memory, for one column after another.
type columnBuffers struct {
	raw, page      []byte
	repBuf, defBuf []uint8
	spans          []decode.Span
	index          []uint32
	head           []byte
}

func (c *Column) borrow(b *columnBuffers) {
	c.raw, c.page, c.repBuf, c.defBuf, c.win.buf = b.raw, b.page, b.repBuf, b.defBuf, b.head
	c.vals.Spans, c.vals.Index = b.spans, b.index
}

// giveBack ends the use of c.
func (c *Column) giveBack(b *columnBuffers) {
	b.raw, b.page, b.repBuf, b.defBuf, b.head = c.raw, c.page, c.repBuf, c.defBuf, c.win.buf
	if b.index = c.vals.Index; c.vals.Spans != nil { // only texts have some
		b.spans = c.vals.Spans
	}
}

// wrap names the place of an error.
func (c *Column) wrap(err error) error {
	return fmt.Errorf("row group %d: column %s: %w", c.group, c.Leaf.Path, err)
}

// Row calls do for each entry of the next row; io.EOF past the last.
func (c *Column) Row(do func(Entry) error) error {
	if c.dead != nil {
		return c.dead
	}
	err := c.readRow(do)
	if err != nil {
		if err != io.EOF {
			err = c.wrap(err)
		}
		c.dead = err
	}
	return err
}

func (c *Column) readRow(do func(Entry) error) error {
	for c.left == 0 {
		if err := c.nextGroup(); err != nil {
			return err
		}
	}
	e, err := c.entry()
	if err != nil {
		return eofIsShort(err, c.left)
	}
	if e.Rep != 0 {
		return Corruptf("a row begins with repetition level %d", e.Rep)
	}
	if err := do(e); err != nil {
		return err
	}
	c.left--
	if c.Leaf.MaxRep == 0 {
		return nil
	}
	for {
		more, err := c.rowGoesOn()
		if err != nil || !more {
			return err
		}
		if e, err = c.entry(); err != nil {
			return err
		}
		if err := do(e); err != nil {
			return err
		}
	}
}

// eofIsShort turns the end of a chunk's pages before its last row into what it is.
func eofIsShort(err error, left int64) error {
	if err == io.EOF {
		return Corruptf("the pages end %d rows before the row group does", left)
	}
	return err
}

// rowGoesOn reports whether the next entry belongs to the row that was begun.
func (c *Column) rowGoesOn() (bool, error) {
	for c.at == c.entries {
		if err := c.nextPage(); err == io.EOF {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return c.rep[c.at] != 0, nil
}

// entry gives the next entry of the chunk; io.EOF at its end.
func (c *Column) entry() (Entry, error) {
	for c.at == c.entries {
		if err := c.nextPage(); err != nil {
			return Entry{}, err
		}
	}
	e := Entry{Def: c.Leaf.MaxDef}
	if c.rep != nil {
		e.Rep = c.rep[c.at]
	}
	if c.def != nil {
		e.Def = c.def[c.at]
	}
	c.at++
	if e.Def == c.Leaf.MaxDef {
		e.Val = c.vals.At(c.valAt)
		c.valAt++
	}
	return e, nil
}

// nextGroup opens the chunk of the next row group that has rows.
func (c *Column) nextGroup() error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	c.group++
	if c.group >= len(c.foot.groups) {
		c.group = len(c.foot.groups)
		return io.EOF
	}
	g := &c.foot.groups[c.group]
	c.left, c.chunk = g.rows, &g.chunks[c.Leaf.Index]
	c.dict, c.at, c.entries, c.values = nil, 0, 0, 0
	if c.left == 0 {
		return nil
	}
	switch {
	case c.chunk.encrypted:
		return Corruptf("the column is encrypted, which is not supported")
	case c.chunk.elsewhere:
		return Corruptf("its pages are in another file, which is not supported")
	}
	c.off = c.chunk.start
	c.win = window{r: c.file, end: c.chunk.end, buf: c.win.buf[:0]}
	skip := c.skip
	c.skip = 0
	a, remote := c.file.(*ahead)
	if !remote || skip == 0 {
		return c.seek(skip)
	}
	c.win.least = 1 << 10 // headers alone are read, each by a request
	if err := c.seek(skip); err != nil {
		return err
	}
	c.win.least = 0
	a.begin(c.off, c.chunk.end, c.left, c.group, g.first+g.rows-c.left)
	return nil
}

// seek passes over rows at a chunk's start.
func (c *Column) seek(rows int64) error {
	if rows == 0 {
		return nil
	}
	want := c.left - rows
	if off, first, ok := c.lookup(rows); ok {
		if err := c.readDictionary(off); err != nil {
			return err
		}
		c.off = off
		c.left -= first
	}
	for c.left > want {
		// Whole pages whose rows are known are not even read.
		if c.at == c.entries {
			h, body, err := c.header()
			if err != nil {
				return eofIsShort(err, c.left)
			}
			n := int64(h.values)
			known := h.typ == pageData && c.Leaf.MaxRep == 0
			if h.typ == pageDataV2 {
				known = true
				if c.Leaf.MaxRep > 0 {
					n = int64(h.rows)
				}
			}
			if known && n <= c.left-want {
				c.off = body + int64(h.compressed)
				c.left -= n
				continue
			}
		}
		if c.Leaf.MaxRep == 0 {
			if c.at == c.entries {
				if err := c.nextPage(); err != nil {
					return eofIsShort(err, c.left)
				}
			}
			c.left -= c.jump(c.left - want)
			continue
		}
		if err := c.readRow(func(Entry) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// jump passes over at most want entries of the page and says how many.
func (c *Column) jump(want int64) int64 {
	n := int(min(want, int64(c.entries-c.at)))
	if c.def == nil {
		c.valAt += n
	} else {
		for _, d := range c.def[c.at : c.at+n] {
			if d == c.Leaf.MaxDef {
				c.valAt++
			}
		}
	}
	c.at += n
	return int64(n)
}

// header reads the next page's header; io.EOF at the chunk's end.
func (c *Column) header() (pageHeader, int64, error) {
	if err := c.ctx.Err(); err != nil {
		return pageHeader{}, 0, err
	}
	if c.off >= c.chunk.end {
		return pageHeader{}, 0, io.EOF
	}
	h, body, err := c.win.header(c.off, format.CompressionCodec(c.chunk.codec))
	if err == nil && c.Leaf.MaxRep == 0 && h.typ != pageDictionary && int64(h.values) > c.left+int64(c.entries-c.at) &&
		h.typ != pageIndex {
		err = Corruptf("page at %d: %d values, where the row group has %d rows left", c.off, h.values, c.left)
	}
	return h, body, err
}

// readDictionary reads the dictionary page at the chunk's start, if one is
// there, for callers that jump to a later page.
func (c *Column) readDictionary(before int64) error {
	if before <= c.chunk.start {
		return nil
	}
	h, body, err := c.header()
	if err != nil || h.typ != pageDictionary {
		return err
	}
	return c.dictionaryPage(h, body)
}

// nextPage decodes the next data page; io.EOF at the chunk's end.
func (c *Column) nextPage() error {
	for {
		h, body, err := c.header()
		if err != nil {
			return err
		}
		at := c.off
		switch h.typ {
		case pageIndex:
			c.off = body + int64(h.compressed)
			continue
		case pageDictionary:
			if c.dict != nil {
				return Corruptf("page at %d: a second dictionary", at)
			}
			if err := c.dictionaryPage(h, body); err != nil {
				return err
			}
			continue
		}
		if err := c.dataPage(h, body); err != nil {
			return fmt.Errorf("page at %d: %w", at, err)
		}
		return nil
	}
}

// body reads a page's bytes into c.raw.
func (c *Column) body(h pageHeader, body int64) error {
	c.raw = sized(c.raw, int(h.compressed))
	if err := c.win.read(c.raw, body); err != nil {
		return err
	}
	c.off = body + int64(h.compressed)
	return h.checkCRC(c.raw)
}

// sized gives a buffer of n bytes, b's memory if it will do. Room that is far
// larger than needed is let go, so that one huge page is not held forever.
func sized(b []byte, n int) []byte {
	if cap(b) < n || (cap(b) > 4<<20 && cap(b)/4 > n) {
		return make([]byte, n)
	}
	return b[:n]
}

func (c *Column) dictionaryPage(h pageHeader, body int64) error {
	at := c.off
	if err := c.body(h, body); err != nil {
		return err
	}
	codec := format.CompressionCodec(c.chunk.codec)
	data := make([]byte, h.uncompressed)
	if err := compress.Expand(codec, data, c.raw); err != nil {
		return Corruptf("dictionary page at %d: %w", at, err)
	}
	enc := h.enc
	//lint:ignore SA1019 older writers name it, so files have it
	if enc == format.PlainDictionary {
		enc = format.Plain
	}
	d := &decode.Vector{}
	if err := decode.Values(d, c.Leaf.Kind, kindWidth(c.Leaf), enc, data, int(h.values), nil); err != nil {
		return Corruptf("dictionary page at %d: %w", at, err)
	}
	c.dict = d
	return nil
}

func (c *Column) dataPage(h pageHeader, body int64) error {
	if err := c.body(h, body); err != nil {
		return err
	}
	codec := format.CompressionCodec(c.chunk.codec)
	n := int(h.values)
	var data []byte
	var err error
	if h.typ == pageDataV2 {
		levels := int(h.repBytes + h.defBytes)
		if data, err = c.inflate(codec, h.plainData, c.raw[levels:], int(h.uncompressed)-levels); err != nil {
			return Corruptf("%w", err)
		}
		c.rep, c.def = nil, nil
		if c.Leaf.MaxRep > 0 {
			if c.rep, err = levels8(&c.repBuf, c.raw[:h.repBytes], n, c.Leaf.MaxRep); err != nil {
				return Corruptf("repetition levels: %w", err)
			}
		}
		if c.Leaf.MaxDef > 0 {
			if c.def, err = levels8(&c.defBuf, c.raw[h.repBytes:levels], n, c.Leaf.MaxDef); err != nil {
				return Corruptf("definition levels: %w", err)
			}
		}
	} else {
		if data, err = c.inflate(codec, false, c.raw, int(h.uncompressed)); err != nil {
			return Corruptf("%w", err)
		}
		if c.rep, data, err = c.levelsV1(&c.repBuf, h.repEnc, data, n, c.Leaf.MaxRep); err != nil {
			return Corruptf("repetition levels: %w", err)
		}
		if c.def, data, err = c.levelsV1(&c.defBuf, h.defEnc, data, n, c.Leaf.MaxDef); err != nil {
			return Corruptf("definition levels: %w", err)
		}
	}
	present := n
	if c.def != nil {
		present = 0
		for _, d := range c.def {
			if d == c.Leaf.MaxDef {
				present++
			}
		}
	}
	if err := decode.Values(&c.vals, c.Leaf.Kind, kindWidth(c.Leaf), h.enc, data, present, c.dict); err != nil {
		return Corruptf("%s: %w", h.enc, err)
	}
	c.values += int64(n)
	if c.values > c.chunk.values {
		return Corruptf("%d values or more, the footer claims %d", c.values, c.chunk.values)
	}
	c.entries, c.at, c.valAt = n, 0, 0
	return nil
}

func (c *Column) inflate(codec format.CompressionCodec, plain bool, src []byte, size int) ([]byte, error) {
	if codec == format.Uncompressed || plain {
		if len(src) != size {
			return nil, fmt.Errorf("%d bytes, not the %d of its header", len(src), size)
		}
		return src, nil
	}
	c.page = sized(c.page, size)
	if size == 0 && len(src) == 0 {
		return c.page, nil // a v2 page of only nulls has nothing to compress
	}
	return c.page, compress.Expand(codec, c.page, src)
}

func (c *Column) levelsV1(buf *[]uint8, enc format.Encoding, data []byte, n int, highest uint8) ([]uint8, []byte,
	error) {
	if highest == 0 {
		return nil, data, nil
	}
	switch enc {
	case format.RLE:
		if len(data) < 4 {
			return nil, nil, decode.ErrShort(len(data), n)
		}
		size := binary.LittleEndian.Uint32(data)
		data = data[4:]
		if uint64(size) > uint64(len(data)) {
			return nil, nil, decode.ErrShort(len(data), n)
		}
		l, err := levels8(buf, data[:size], n, highest)
		return l, data[size:], err
	case format.BitPacked: // deprecated: most significant bit first, no length
		width := int(decode.LevelWidth(highest))
		size := (n*width + 7) / 8
		if size > len(data) {
			return nil, nil, decode.ErrShort(len(data), n)
		}
		l := sized(*buf, n)
		*buf = l
		for i := range l {
			x := uint8(0)
			for b := i * width; b < (i+1)*width; b++ {
				x = x<<1 | data[b/8]>>(7-b%8)&1
			}
			l[i] = x
		}
		return l, data[size:], checkLevels(l, highest)
	}
	return nil, nil, fmt.Errorf("encoding %s is not supported for levels", enc)
}

func levels8(buf *[]uint8, data []byte, n int, highest uint8) ([]uint8, error) {
	l := sized(*buf, n)
	*buf = l
	if err := decode.Hybrid(l, data, decode.LevelWidth(highest)); err != nil {
		return nil, err
	}
	return l, checkLevels(l, highest)
}

func checkLevels(l []uint8, highest uint8) error {
	for _, x := range l {
		if x > highest {
			return fmt.Errorf("level %d of at most %d", x, highest)
		}
	}
	return nil
}
