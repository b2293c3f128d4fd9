package pq

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
	"golang.org/x/sync/errgroup"
)

// copiedGroup is a row group on its way: its pages, and what the footer says of
// its columns.
type copiedGroup struct {
	rows   int64
	spool  spool
	chunks []copiedChunk
}

type copiedChunk struct {
	w        *chunkWriter
	from, to int64 // of the spool
}

// WriteTo writes the whole file to w. scratch makes files without a name for what
// does not fit into memory. Row groups are made several at a time, each as soon
// as it has a slot, and written in order.
func (c *Copy) WriteTo(ctx context.Context, w io.Writer, scratch func() (*os.File, error)) error {
	if err := Recovered(func() error { return c.writeTo(ctx, w, scratch) }); err != nil {
		return fmt.Errorf("copy %s: %w", c.In.path, err)
	}
	return nil
}

func (c *Copy) writeTo(ctx context.Context, w io.Writer, scratch func() (*os.File, error)) error {
	if c.BesideOnly && len(c.Beside) == 0 {
		return errors.New("there are no columns to copy")
	}
	root, cols, err := c.plan()
	if err != nil {
		return err
	}
	out := &copyFile{w: w, cols: cols}
	if err := out.bytes([]byte("PAR1")); err != nil {
		return err
	}
	type pending struct {
		group *copiedGroup
		done  chan error
	}
	g, gctx := errgroup.WithContext(ctx)
	queue := make(chan pending, cap(c.Slots)) // at most a slot each, so that making never waits for writing
	g.Go(func() error {
		defer close(queue)
		for i := range c.In.foot.groups {
			in := &c.In.foot.groups[i]
			rows := in.rows
			if c.Rows != nil {
				rows = c.Rows.Count(in.first, in.first+in.rows)
			}
			if rows == 0 {
				continue
			}
			select {
			case c.Slots <- struct{}{}:
			case <-gctx.Done():
				return gctx.Err()
			}
			p := pending{&copiedGroup{rows: rows, spool: spool{make: scratch}}, make(chan error, 1)}
			g.Go(func() error { // its result goes through done, in order
				p.done <- Recovered(func() error { return c.group(gctx, i, cols, p.group) })
				return nil
			})
			queue <- p
		}
		return nil
	})
	g.Go(func() error {
		var first error
		for p := range queue {
			err := <-p.done
			if err == nil && first == nil {
				err = out.group(p.group)
			}
			err = errors.Join(err, p.group.spool.close())
			<-c.Slots
			if err != nil && first == nil {
				first = err
			}
			if first != nil && gctx.Err() == nil {
				// Those behind are still made and dropped; the maker is told by ctx.
				g.Go(func() error { return first })
			}
		}
		return first
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return out.close(c, root)
}

// group copies row group i.
func (c *Copy) group(ctx context.Context, i int, cols []columnSource, to *copiedGroup) error {
	in := &c.In.foot.groups[i]
	buffers := pageBuffersPool.Get().(*pageBuffers)
	defer buffers.give()
	for _, s := range cols {
		w := &chunkWriter{leaf: s.leaf, codec: s.codec, out: &to.spool, pageBuffers: buffers.begin()}
		from := to.spool.n
		var err error
		switch {
		case s.in != nil:
			w.codec = writable(codecOf(&in.chunks[s.in.Index]))
			err = c.copyChunk(ctx, i, s.in, w, to.rows == in.rows)
		case s.beside != "":
			err = c.besideChunk(ctx, in, s, w)
		default:
			err = c.labelChunk(in, w)
		}
		if err == nil {
			err = w.flush()
		}
		w.pageBuffers = nil
		if err != nil {
			return fmt.Errorf("row group %d: column %s: %w", i, s.leaf.Path, err)
		}
		to.chunks = append(to.chunks, copiedChunk{w, from, to.spool.n})
	}
	return nil
}

// keeps gives the rows of [from, to) that are copied, from the first on.
func (c *Copy) keeps(from, to int64) (start, end int64) {
	if c.Rows == nil {
		return from, to
	}
	return c.Rows.Run(from, to)
}

// copyChunk copies one leaf of a row group, page by page. all says that every
// row of the group is copied: its dictionary can then stay as it is.
func (c *Copy) copyChunk(ctx context.Context, group int, l *Leaf, w *chunkWriter, all bool) error {
	g := &c.In.foot.groups[group]
	col := NewColumn(ctx, c.In.file, c.In.foot, l, g.first)
	col.borrow(&w.source)
	defer col.giveBack(&w.source)
	if err := col.nextGroup(); err != nil {
		return err
	}
	for col.group < group { // groups without rows before it begin at the same row
		if err := col.nextGroup(); err != nil {
			return err
		}
	}
	same := w.codec == codecOf(col.chunk)
	row := g.first // of the next entry whose repetition level is 0
	for {
		at := col.off
		h, body, err := col.header()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		switch h.typ {
		case pageIndex:
			col.off = body + int64(h.compressed)
			continue
		case pageDictionary:
			if err := c.dictionary(col, h, body, w, all && same); err != nil {
				return err
			}
			continue
		}
		rows := int64(-1) // unknown
		switch {
		case l.MaxRep == 0:
			rows = int64(h.values)
		case h.typ == pageDataV2:
			rows = int64(h.rows)
		}
		kept := int64(-1)
		if rows >= 0 && c.Rows != nil {
			kept = c.Rows.Count(row, row+rows)
		}
		switch {
		case same && (all || (kept == rows && rows >= 0 && !isDict(h.enc))):
			if err := c.wholePage(col, h, at, body, w); err != nil {
				return err
			}
		case kept == 0:
			col.off = body + int64(h.compressed)
		default:
			if err := col.dataPage(h, body); err != nil {
				return fmt.Errorf("page at %d: %w", at, err)
			}
			if row == g.first && col.rep != nil && h.values > 0 && col.rep[0] != 0 {
				return Corruptf("page at %d: the row group begins inside a row", at)
			}
			next, err := c.partOfPage(col, h, row, g.first+g.rows, w)
			if err != nil {
				return fmt.Errorf("page at %d: %w", at, err)
			}
			if rows >= 0 && next-row != rows {
				return Corruptf("page at %d: %d rows, its header claims %d", at, next-row, rows)
			}
			rows = next - row
		}
		if rows > 0 {
			row += rows
			col.left -= rows
		}
		col.entries, col.at = 0, 0
	}
	if row != g.first+g.rows && !(all && same && l.MaxRep > 0) {
		return Corruptf("its pages have %d rows, the row group %d", row-g.first, g.rows)
	}
	if all && same && w.values != col.chunk.values {
		return Corruptf("its pages have %d values, the footer claims %d", w.values, col.chunk.values)
	}
	return nil
}

// dictionary copies a dictionary page, or takes it in to pick from it.
func (c *Copy) dictionary(col *Column, h pageHeader, body int64, w *chunkWriter, whole bool) error {
	if whole {
		at := col.off
		if err := col.body(h, body); err != nil {
			return err
		}
		header, err := col.win.view(at, int(body-at))
		if err != nil {
			return err
		}
		if w.size > 0 {
			return Corruptf("page at %d: a dictionary behind other pages", at)
		}
		w.uses(format.Plain)
		w.rawDict, w.rawDictBytes = true, body-at+int64(h.compressed)
		return w.write(header, col.raw, int64(h.uncompressed))
	}
	if col.dict != nil {
		return Corruptf("page at %d: a second dictionary", col.off)
	}
	return col.dictionaryPage(h, body)
}

// wholePage copies a page as it is.
func (c *Copy) wholePage(col *Column, h pageHeader, at, body int64, w *chunkWriter) error {
	if err := col.body(h, body); err != nil {
		return err
	}
	header, err := col.win.view(at, int(body-at))
	if err != nil {
		return err
	}
	return w.copyPage(h, header, col.raw)
}

// partOfPage takes the entries of rows that are copied from the page that col
// holds. row is that of the first entry that begins one, or, when the page
// begins inside a row, of the next; the result is the next page's.
func (c *Copy) partOfPage(col *Column, h pageHeader, row, end int64, w *chunkWriter) (int64, error) {
	n := col.entries
	if col.rep == nil {
		last := row + int64(n)
		if last > end {
			return 0, Corruptf("more rows than the row group has")
		}
		at, val := 0, 0
		for from := row; from < last; {
			a, b := c.keeps(from, last)
			if a == b {
				break
			}
			// Values of rows passed over.
			val += present(col, at, int(a-row))
			var err error
			if val, err = w.take(col, h, int(a-row), int(b-row), val); err != nil {
				return 0, err
			}
			at, from = int(b-row), b
		}
		return last, nil
	}
	at, val := 0, 0
	for at < n {
		keep := c.Rows == nil || (row > 0 && c.Rows.Has(row-1)) // of the row that goes on
		to := at
		for to < n {
			if col.rep[to] == 0 {
				if row >= end {
					return 0, Corruptf("more rows than the row group has")
				}
				k := c.Rows == nil || c.Rows.Has(row)
				if k != keep && to > at {
					break
				}
				keep = k
				row++
			}
			to++
		}
		if keep {
			var err error
			if val, err = w.take(col, h, at, to, val); err != nil {
				return 0, err
			}
		} else {
			val += present(col, at, to)
		}
		at = to
	}
	return row, nil
}

// present counts the values among entries [a, b).
func present(col *Column, a, b int) int {
	if col.def == nil {
		return b - a
	}
	n := 0
	for _, d := range col.def[a:b] {
		if d == col.Leaf.MaxDef {
			n++
		}
	}
	return n
}

// besideChunk copies the same rows of a column of the files beside the input.
func (c *Copy) besideChunk(ctx context.Context, g *rowGroup, s columnSource, w *chunkWriter) error {
	var cur *Range
	var col *Column
	next := int64(-1) // row that col is at
	end := g.first + g.rows
	for from := g.first; ; {
		a, b := c.keeps(from, end)
		if a == b {
			return nil
		}
		for row := a; row < b; row++ {
			if cur == nil || row > cur.Last {
				if cur = RangeOf(c.Beside, row); cur == nil {
					return fmt.Errorf("row %d has no score", row)
				}
				e, err := cur.Table.foot.Top(s.beside)
				if err != nil {
					return fmt.Errorf("%s: %w", cur.Table.path, err)
				}
				leaves := e.AppendLeaves(nil)
				if s.nth >= len(leaves) || leaves[s.nth].Kind != s.leaf.Kind || leaves[s.nth].MaxDef != s.leaf.MaxDef || leaves[s.nth].MaxRep != s.leaf.MaxRep {
					return fmt.Errorf("%s: %w: column %q is of another type than in the first score file", cur.Table.path, ErrColumn, s.beside)
				}
				col = NewColumn(ctx, cur.Table.file, cur.Table.foot, leaves[s.nth], row-cur.First)
				next = row
			}
			for ; next < row; next++ {
				if err := col.Row(func(Entry) error { return nil }); err != nil {
					return fmt.Errorf("%s: %w", cur.Table.path, eofIsShort(err, 1))
				}
			}
			if err := col.Row(w.add); err != nil {
				return fmt.Errorf("%s: %w", cur.Table.path, eofIsShort(err, 1))
			}
			next++
		}
		from = b
	}
}

// RangeOf finds the range that has a row; nil if none has.
func RangeOf(ranges []Range, row int64) *Range {
	for i := range ranges {
		if r := &ranges[i]; r.First <= row && row <= r.Last {
			return r
		}
	}
	return nil
}

// labelChunk writes the label of the same rows.
func (c *Copy) labelChunk(g *rowGroup, w *chunkWriter) error {
	end := g.first + g.rows
	for from := g.first; ; {
		a, b := c.keeps(from, end)
		if a == b {
			return nil
		}
		for row := a; row < b; row++ {
			e := Entry{}
			if v := c.Value(row); v != "" {
				e = Entry{Def: 1, Val: []byte(v)}
			}
			if err := w.add(e); err != nil {
				return err
			}
		}
		from = b
	}
}

// copyFile writes row groups one after another, and the footer.
type copyFile struct {
	w      io.Writer
	at     int64
	cols   []columnSource
	groups []format.RowGroup
	rows   int64
}

func (f *copyFile) bytes(b []byte) error {
	f.at += int64(len(b))
	_, err := f.w.Write(b)
	return err
}

type offsetWriter struct{ f *copyFile }

func (o offsetWriter) Write(b []byte) (int, error) { return len(b), o.f.bytes(b) }

func (f *copyFile) group(g *copiedGroup) error {
	rg := format.RowGroup{NumRows: g.rows, FileOffset: f.at}
	if len(f.groups) < 1<<15 {
		rg.Ordinal = int16(len(f.groups))
	}
	for i, c := range g.chunks {
		m := format.ColumnMetaData{
			Type: format.Type(c.w.leaf.Kind), PathInSchema: f.cols[i].path, Codec: c.w.codec, NumValues: c.w.values,
		}
		start := f.at
		if err := c.w.dictionaryTo(offsetWriter{f}); err != nil {
			return err
		}
		if c.w.dictN > 0 || c.w.rawDict {
			m.DictionaryPageOffset = start
		}
		m.DataPageOffset = f.at + c.w.rawDictBytes
		if err := g.spool.copyTo(f.w, c.from, c.to); err != nil {
			return err
		}
		f.at += c.to - c.from
		m.Encoding = c.w.encodings
		if c.w.leaf.MaxDef+c.w.leaf.MaxRep > 0 {
			c.w.uses(format.RLE)
			m.Encoding = c.w.encodings
		}
		m.TotalCompressedSize, m.TotalUncompressedSize = f.at-start, c.w.uncompressed
		rg.TotalByteSize += m.TotalUncompressedSize
		rg.TotalCompressedSize += m.TotalCompressedSize
		// The metadata lies in the footer alone, so there is no offset of it.
		rg.Columns = append(rg.Columns, format.ColumnChunk{MetaData: m})
	}
	f.groups = append(f.groups, rg)
	f.rows += g.rows
	return nil
}

func (f *copyFile) close(c *Copy, root *Element) error {
	foot := c.In.foot
	meta := format.FileMetaData{
		Version: 1, Schema: root.appendTo(nil), NumRows: f.rows, RowGroups: f.groups, CreatedBy: "surprisal",
	}
	if meta.RowGroups == nil {
		meta.RowGroups = []format.RowGroup{}
	}
	kvs := foot.kv
	if c.BesideOnly {
		kvs = nil
		if a, ok := c.Beside[0].Table.foot.Lookup(ArrowSchemaKey); ok && c.Label == "" {
			meta.KeyValueMetadata = append(meta.KeyValueMetadata, format.KeyValue{Key: ArrowSchemaKey, Value: a})
		}
	}
	for _, kv := range kvs {
		if slices.ContainsFunc(c.Metadata, func(ours [2]string) bool { return ours[0] == kv.key }) {
			continue // the input was made so too
		}
		if kv.key == ArrowSchemaKey && len(root.children) != len(foot.schema.children) {
			if kv.value = c.arrowSchema(kv.value); kv.value == "" {
				continue
			}
		}
		meta.KeyValueMetadata = append(meta.KeyValueMetadata, format.KeyValue{Key: kv.key, Value: kv.value})
	}
	for _, kv := range c.Metadata {
		meta.KeyValueMetadata = append(meta.KeyValueMetadata, format.KeyValue{Key: kv[0], Value: kv[1]})
	}
	b, err := thrift.Marshal(new(thrift.CompactProtocol), &meta)
	if err != nil {
		return fmt.Errorf("footer: %w", err)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(b)))
	return f.bytes(append(b, "PAR1"...))
}

// arrowSchema is the input's with the columns added; empty when that can't be
// told, and readers then go by parquet's own types.
func (c *Copy) arrowSchema(in string) string {
	foot := c.In.foot
	var names, added []string
	for _, e := range foot.schema.children {
		names = append(names, e.se.Name)
	}
	for _, e := range c.added() {
		added = append(added, e.se.Name)
	}
	if c.Label != "" {
		added = append(added, c.Label)
	}
	return JoinArrowSchema(in, names, foot.schema.children, c.Arrow, added)
}
