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

	"surprisal/internal/shard/pq/arrow"
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
	if c.footer, err = c.In.footerBytes(); err != nil {
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
				// Those behind are still made and dropped; ctx stops the maker.
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
		w := &chunkWriter{
			leaf: s.leaf, order: s.order, codec: s.codec, out: &to.spool, source: unknown, pageBuffers: buffers.begin(),
		}
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
				if s.nth >= len(leaves) || leaves[s.nth].Kind != s.leaf.Kind || leaves[s.nth].MaxDef != s.leaf.MaxDef ||
					leaves[s.nth].MaxRep != s.leaf.MaxRep {
					return fmt.Errorf("%s: %w: column %q is of another type than in the first score file",
						cur.Table.path, ErrColumn, s.beside)
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
	w       io.Writer
	at      int64
	cols    []columnSource
	groups  []wireGroup
	indexes [][]chunkIndexes // of the groups's chunks
	rows    int64
}

func (f *copyFile) bytes(b []byte) error {
	f.at += int64(len(b))
	_, err := f.w.Write(b)
	return err
}

// chunkIndexes are written behind all row groups.
type chunkIndexes struct {
	column *wireColumnIndex
	offset *format.OffsetIndex
}

type offsetWriter struct{ f *copyFile }

func (o offsetWriter) Write(b []byte) (int, error) { return len(b), o.f.bytes(b) }

func (f *copyFile) group(g *copiedGroup) error {
	var indexes []chunkIndexes
	rg := wireGroup{NumRows: g.rows, FileOffset: f.at}
	if len(f.groups) < 1<<15 {
		rg.Ordinal = int16(len(f.groups))
	}
	for i, c := range g.chunks {
		m := wireMeta{
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
		known := c.w.statistics()
		m.Statistics = known.wire()
		rg.Columns = append(rg.Columns, wireChunk{MetaData: m})
		indexes = append(indexes, chunkIndexes{c.w.columnIndex(), c.w.offsetIndex(m.DataPageOffset)})
	}
	f.indexes = append(f.indexes, indexes)
	f.groups = append(f.groups, rg)
	f.rows += g.rows
	return nil
}

// writeIndexes writes the column indexes, then the offset indexes.
func (f *copyFile) writeIndexes() error {
	put := func(index any, off *int64, length *int32) error {
		b, err := thrift.Marshal(new(thrift.CompactProtocol), index)
		if err != nil {
			return fmt.Errorf("page index: %w", err)
		}
		*off, *length = f.at, int32(len(b))
		return f.bytes(b)
	}
	for i, group := range f.indexes {
		for k, x := range group {
			if c := &f.groups[i].Columns[k]; x.column != nil {
				if err := put(x.column, &c.ColumnIndexOffset, &c.ColumnIndexLength); err != nil {
					return err
				}
			}
		}
	}
	for i, group := range f.indexes {
		for k, x := range group {
			if c := &f.groups[i].Columns[k]; x.offset != nil {
				if err := put(x.offset, &c.OffsetIndexOffset, &c.OffsetIndexLength); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (f *copyFile) close(c *Copy, root *Element) error {
	if err := f.writeIndexes(); err != nil {
		return err
	}
	foot := c.In.foot
	meta := wireFooter{
		Version: 1, Schema: root.appendTo(nil), NumRows: f.rows, RowGroups: f.groups, CreatedBy: "surprisal",
	}
	if meta.RowGroups == nil {
		meta.RowGroups = []wireGroup{}
	}
	for range f.cols {
		meta.ColumnOrders = append(meta.ColumnOrders, format.ColumnOrder{Value: &format.TypeDefinedOrder{}})
	}
	kvs := foot.kv
	if c.BesideOnly {
		kvs = nil
		if a, ok := c.Beside[0].Table.foot.Lookup(arrow.SchemaKey); ok && c.Label == "" {
			meta.KeyValueMetadata = append(meta.KeyValueMetadata, format.KeyValue{Key: arrow.SchemaKey, Value: a})
		}
	}
	for _, kv := range kvs {
		if slices.ContainsFunc(c.Metadata, func(ours [2]string) bool { return ours[0] == kv.key }) {
			continue // the input was made so too
		}
		if kv.key == arrow.SchemaKey && len(root.children) != len(foot.schema.children) {
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
	return arrow.Join(in, names, names, c.Arrow, added)
}
