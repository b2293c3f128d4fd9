package pq

import (
	"context"
	"fmt"
	"io"

	"github.com/parquet-go/parquet-go/format"
)

// chunkCopy is one leaf of a row group on its way from the input to a chunkWriter.
type chunkCopy struct {
	*Copy
	col   *Column
	w     *chunkWriter
	first int64 // the row group's first row
	end   int64 // and the one behind its last
	row   int64 // of the next entry whose repetition level is 0
	// all: every row of the group is copied. same: in the input's codec. With both, the
	// chunk stays as it is, dictionary included.
	all, same bool
	claims    claims
}

// copyChunk copies one leaf of a row group, page by page.
func (c *Copy) copyChunk(ctx context.Context, group int, l *Leaf, w *chunkWriter, all bool) error {
	g := &c.In.foot.groups[group]
	k := chunkCopy{Copy: c, w: w, first: g.first, end: g.first + g.rows, row: g.first, all: all}
	k.col = NewColumn(ctx, c.In.file, c.In.foot, l, g.first)
	k.col.borrow(&w.memory)
	defer k.col.giveBack(&w.memory)
	if err := k.col.nextGroup(); err != nil {
		return err
	}
	for k.col.group < group { // groups without rows before it begin at the same row
		if err := k.col.nextGroup(); err != nil {
			return err
		}
	}
	k.same = w.codec == codecOf(k.col.chunk)
	var err error
	if k.claims, err = c.In.foot.claims(c.In.file, k.col.chunk, l, w.order, c.footer); err != nil {
		return err
	}
	w.source, w.whole = k.claims.chunk, all
	for {
		if err := k.page(); err == io.EOF {
			return k.check()
		} else if err != nil {
			return err
		}
	}
}

// page copies the next page; io.EOF at the chunk's end.
func (k *chunkCopy) page() error {
	at := k.col.off
	h, body, err := k.col.header()
	if err != nil {
		return err
	}
	switch h.typ {
	case pageIndex:
		k.col.off = body + int64(h.compressed)
		return nil
	case pageDictionary:
		return k.dictionary(h, at, body)
	}
	rows := int64(-1) // unknown
	switch {
	case k.col.Leaf.MaxRep == 0:
		rows = int64(h.values)
	case h.typ == pageDataV2:
		rows = int64(h.rows)
	}
	if rows, err = k.dataPage(h, at, body, rows); err != nil {
		return err
	}
	if rows > 0 {
		k.row += rows
		k.col.left -= rows
	}
	k.col.entries, k.col.at = 0, 0
	return nil
}

// dataPage copies a page of so many rows, -1 for unknown, and says how many it has.
func (k *chunkCopy) dataPage(h pageHeader, at, body, rows int64) (int64, error) {
	kept := int64(-1)
	if rows >= 0 && k.Rows != nil {
		kept = k.Rows.Count(k.row, k.row+rows)
	}
	switch {
	case k.same && (k.all || (kept == rows && rows >= 0 && !isDict(h.enc))):
		return rows, k.wholePage(h, at, body, rows)
	case kept == 0:
		k.col.off = body + int64(h.compressed)
		return rows, nil
	}
	if err := k.col.dataPage(h, body); err != nil {
		return 0, fmt.Errorf("page at %d: %w", at, err)
	}
	if k.row == k.first && k.col.rep != nil && h.values > 0 && k.col.rep[0] != 0 {
		return 0, Corruptf("page at %d: the row group begins inside a row", at)
	}
	next, err := k.partOfPage(h)
	if err != nil {
		return 0, fmt.Errorf("page at %d: %w", at, err)
	}
	if rows >= 0 && next-k.row != rows {
		return 0, Corruptf("page at %d: %d rows, its header claims %d", at, next-k.row, rows)
	}
	return next - k.row, nil
}

// check holds what was copied against the footer.
func (k *chunkCopy) check() error {
	whole := k.all && k.same
	if rows := k.end - k.first; k.row != k.end && !(whole && k.col.Leaf.MaxRep > 0) {
		return Corruptf("its pages have %d rows, the row group %d", k.row-k.first, rows)
	}
	if whole && k.w.values != k.col.chunk.values {
		return Corruptf("its pages have %d values, the footer claims %d", k.w.values, k.col.chunk.values)
	}
	return nil
}

// dictionary copies a dictionary page, or takes it in to pick from it.
func (k *chunkCopy) dictionary(h pageHeader, at, body int64) error {
	if !k.all || !k.same {
		if k.col.dict != nil {
			return Corruptf("page at %d: a second dictionary", at)
		}
		return k.col.dictionaryPage(h, body)
	}
	if err := k.col.body(h, body); err != nil {
		return err
	}
	header, err := k.col.win.view(at, int(body-at))
	if err != nil {
		return err
	}
	if k.w.size > 0 {
		return Corruptf("page at %d: a dictionary after other pages", at)
	}
	k.w.uses(format.Plain)
	k.w.rawDict, k.w.rawDictBytes = true, body-at+int64(h.compressed)
	return k.w.write(header, k.col.raw, int64(h.uncompressed))
}

// wholePage copies a page as it is.
func (k *chunkCopy) wholePage(h pageHeader, at, body, rows int64) error {
	if err := k.col.body(h, body); err != nil {
		return err
	}
	header, err := k.col.win.view(at, int(body-at))
	if err != nil {
		return err
	}
	known, ok := k.claims.pages[at]
	if !ok {
		known = unknown
	}
	if known.nulls < 0 && h.typ == pageDataV2 {
		known.nulls = int64(h.nulls)
	}
	if known.nulls > int64(h.values) || known.empty && known.nulls >= 0 && known.nulls < int64(h.values) {
		known = unknown // the index is of another page
	}
	return k.w.copyPage(h, header, k.col.raw, rows, known)
}

// partOfPage takes the entries of rows that are copied from the page that col holds. The
// result is the row of the first entry behind it that begins one.
func (k *chunkCopy) partOfPage(h pageHeader) (next int64, err error) {
	if k.col.rep == nil {
		return k.partOfFlatPage(h)
	}
	col, n, row := k.col, k.col.entries, k.row
	at, val := 0, 0
	for at < n {
		keep := k.Rows == nil || (row > 0 && k.Rows.Has(row-1)) // of the row that goes on
		to := at
		for to < n {
			if col.rep[to] == 0 {
				if row >= k.end {
					return 0, Corruptf("more rows than the row group has")
				}
				has := k.Rows == nil || k.Rows.Has(row)
				if has != keep && to > at {
					break
				}
				keep = has
				row++
			}
			to++
		}
		if keep {
			if val, err = k.w.take(col, h, at, to, val); err != nil {
				return 0, err
			}
		} else {
			val += present(col, at, to)
		}
		at = to
	}
	return row, nil
}

// partOfFlatPage is partOfPage of a leaf whose entries are a row each.
func (k *chunkCopy) partOfFlatPage(h pageHeader) (next int64, err error) {
	row, last := k.row, k.row+int64(k.col.entries)
	if last > k.end {
		return 0, Corruptf("more rows than the row group has")
	}
	at, val := 0, 0
	for from := row; from < last; {
		a, b := k.keeps(from, last)
		if a == b {
			break
		}
		val += present(k.col, at, int(a-row)) // of rows passed over
		if val, err = k.w.take(k.col, h, int(a-row), int(b-row), val); err != nil {
			return 0, err
		}
		at, from = int(b-row), b
	}
	return last, nil
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
