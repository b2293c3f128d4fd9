package pq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/testkit/shardtest"
)

// statRow has a column for each way in which values compare.
type statRow struct {
	I32    int32    `parquet:"i32"`
	U32    uint32   `parquet:"u32"`
	I64    int64    `parquet:"i64"`
	U64    uint64   `parquet:"u64"`
	F32    float32  `parquet:"f32"`
	F64    *float64 `parquet:"f64,optional"`
	Bool   bool     `parquet:"bool"`
	Text   *string  `parquet:"text,optional"`
	Long   string   `parquet:"long"`
	Bytes  []byte   `parquet:"bytes"`
	Dict   *string  `parquet:"dict,optional,dict"`
	List   []int32  `parquet:"list,list"`
	Sorted int64    `parquet:"sorted"`
}

func statRows(n int) []statRow {
	r := rand.New(rand.NewPCG(3, 4))
	rows := make([]statRow, n)
	for i := range rows {
		f := r.NormFloat64()
		if i%97 == 5 {
			f = 0
		}
		text := fmt.Sprintf("ü%d%s", r.IntN(1000), strings.Repeat("é", r.IntN(80)))
		dict := fmt.Sprintf("d%d", r.IntN(9))
		rows[i] = statRow{
			I32: int32(r.Uint32()), U32: r.Uint32(), I64: int64(r.Uint64()), U64: r.Uint64(), F32: float32(f), F64: &f,
			Bool: r.IntN(40) == 0, Text: &text, Long: strings.Repeat("\U0010ffff", r.IntN(40)) + text,
			Bytes: bytes.Repeat([]byte{0xff}, r.IntN(90)), Dict: &dict, List: make([]int32, r.IntN(4)),
			Sorted: int64(i),
		}
		switch {
		case i%7 == 3:
			rows[i].F64, rows[i].Text, rows[i].Dict = nil, nil, nil
		case i > n*3/4: // whole pages and groups of nulls
			rows[i].Text = nil
		}
	}
	return rows
}

func writeStatRows(t *testing.T, rows []statRow, options ...parquet.WriterOption) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stats.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := parquet.NewGenericWriter[statRow](f, append(options, parquet.PageBufferSize(600),
		parquet.ColumnIndexSizeLimit(func([]string) int { return 16 }))...)
	for i := range rows {
		if _, err := w.Write(rows[i : i+1]); err != nil {
			t.Fatal(err)
		}
		if i%200 == 199 {
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCopyStatistics copies rows of files with and without page indexes and holds the
// statistics and indexes of the copies to their values, as another reader decodes them.
func TestCopyStatistics(t *testing.T) {
	rows := statRows(1000)
	for name, options := range map[string][]parquet.WriterOption{
		"v1": {parquet.DataPageVersion(1)}, "v2": {parquet.DataPageVersion(2)},
		"zstd":      {parquet.Compression(&parquet.Zstd)},
		"no bounds": {parquet.SkipPageBounds("i64"), parquet.SkipPageBounds("text")},
	} {
		path := writeStatRows(t, rows, options...)
		for what, keep := range shardtest.Selections {
			t.Run(name+" "+what, func(t *testing.T) {
				in, set := openTable(t, path), &Bitmap{}
				for i := range in.Rows() {
					if keep(i % shardtest.Rows) {
						set.Set(i)
					}
				}
				c := Copy{In: in, Rows: set, Slots: make(chan struct{}, 2)}
				if what == "all" {
					c.Rows = nil
				}
				to := filepath.Join(t.TempDir(), "copy.parquet")
				if err := copyTo(context.Background(), to, c); err != nil {
					t.Fatal(err)
				}
				if indexes, stats := checkBounds(t, to); what != "none" && (indexes == 0 || stats == 0) {
					t.Errorf("%d column indexes, %d statistics", indexes, stats)
				}
			})
		}
	}
}

// checkBounds reads a file's values with the library and holds bounds to them.
func checkBounds(t *testing.T, path string) (indexes, stats int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	file, err := parquet.OpenFile(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	for g, group := range file.RowGroups() {
		for i, chunk := range group.ColumnChunks() {
			typ, m := chunk.Type(), &file.Metadata().RowGroups[g].Columns[i].MetaData
			at := fmt.Sprintf("group %d, column %v", g, m.PathInSchema)
			inside := func(v, low, high parquet.Value) {
				if typ.Kind() >= parquet.Float && typ.Kind() <= parquet.Double && math.IsNaN(v.Double()) {
					return
				}
				if typ.Compare(v, low) < 0 || typ.Compare(v, high) > 0 {
					t.Errorf("%s: %v is outside %v to %v", at, v, low, high)
				}
			}
			ci, cierr := chunk.ColumnIndex()
			oi, oierr := chunk.OffsetIndex()
			if oierr == nil && cierr == nil {
				indexes++
			}
			s, nulls, row := &m.Statistics, int64(0), int64(0)
			bounded := s.MinValue != nil && s.MaxValue != nil
			if bounded {
				stats++
				if len(s.MinValue) > maxBound || len(s.MaxValue) > maxBound+3 {
					t.Errorf("%s: bounds of %d and %d bytes", at, len(s.MinValue), len(s.MaxValue))
				}
			}
			pages := chunk.Pages()
			for p := 0; ; p++ {
				page, err := pages.ReadPage()
				if errors.Is(err, io.EOF) {
					if oierr == nil && p != oi.NumPages() {
						t.Errorf("%s: %d pages, the index has %d", at, p, oi.NumPages())
					}
					break
				}
				if err != nil {
					t.Fatalf("%s: %v", at, err)
				}
				if oierr == nil && oi.FirstRowIndex(p) != row {
					t.Errorf("%s: page %d begins with row %d, the index says %d", at, p, row, oi.FirstRowIndex(p))
				}
				row += page.NumRows()
				values := make([]parquet.Value, page.NumValues())
				n, _ := page.Values().ReadValues(values)
				pageNulls := int64(0)
				for _, v := range values[:n] {
					if v.IsNull() {
						pageNulls++
						continue
					}
					if bounded {
						inside(v, typ.Kind().Value(s.MinValue), typ.Kind().Value(s.MaxValue))
					}
					if cierr == nil {
						if ci.NullPage(p) {
							t.Errorf("%s: page %d is not of nulls alone", at, p)
						} else {
							inside(v, ci.MinValue(p), ci.MaxValue(p))
						}
					}
				}
				if nulls += pageNulls; cierr == nil && ci.NullCount(p) > 0 && ci.NullCount(p) != pageNulls {
					t.Errorf("%s: page %d has %d nulls, the index says %d", at, p, pageNulls, ci.NullCount(p))
				}
			}
			if err := pages.Close(); err != nil {
				t.Fatal(err)
			}
			if s.NullCount > 0 && s.NullCount != nulls {
				t.Errorf("%s: %d nulls, the footer says %d", at, nulls, s.NullCount)
			}
		}
	}
	return indexes, stats
}

// TestBounds: bounds that are cut still hold, and stay text; NaN and zeros are special.
func TestBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 3000 {
		var least, most []byte
		for _, o := range []valueOrder{bytesOrder, textOrder} {
			m := boundsMaker{order: o}
			for k := range 4 {
				var v []byte
				for range r.IntN(40) {
					if o == textOrder {
						v = fmt.Appendf(v, "%c", []rune{'a', 'é', 0xd7ff, 0x10ffff, 0x10fffe}[r.IntN(5)])
					} else {
						v = append(v, []byte{0, 0xff, 0xfe}[r.IntN(3)])
						v = append(v, 0xff, 0xff)
					}
				}
				if m.add(v); k == 0 || bytes.Compare(v, least) < 0 {
					least = v
				}
				if k == 0 || bytes.Compare(v, most) > 0 {
					most = v
				}
			}
			b := m.bounds(4, 0)
			if b.min != nil && (bytes.Compare(b.min, least) > 0 || b.minExact != bytes.Equal(b.min, least) ||
				len(b.min) > maxBound) {
				t.Fatalf("minimum %q (%v) of %q", b.min, b.minExact, least)
			}
			if b.max != nil && (bytes.Compare(b.max, most) < 0 || b.maxExact != bytes.Equal(b.max, most) ||
				len(b.max) > maxBound+4) {
				t.Fatalf("maximum %q (%v) of %q", b.max, b.maxExact, most)
			}
			if o == textOrder && (!strings.Contains(string(b.min), "") || strings.ToValidUTF8(string(b.min),
				"?") != string(b.min) ||
				strings.ToValidUTF8(string(b.max), "?") != string(b.max)) {
				t.Fatalf("bounds %q and %q are not text", b.min, b.max)
			}
		}
	}
	float := func(x ...float64) bounds {
		m := boundsMaker{order: floatOrder}
		for _, x := range x {
			m.add(parquet.DoubleValue(x).Bytes())
		}
		return m.bounds(len(x), 0)
	}
	if b := float(1, math.NaN(), 2); b.min != nil || b.max != nil || b.empty {
		t.Errorf("with NaN: %+v", b)
	}
	if b := float(0, 5); !math.Signbit(floatValue(b.min)) || floatValue(b.max) != 5 {
		t.Errorf("from zero: %+v", b)
	}
	if b := float(math.Copysign(0, -1), -5); math.Signbit(floatValue(b.max)) || floatValue(b.min) != -5 {
		t.Errorf("to zero: %+v", b)
	}
}
