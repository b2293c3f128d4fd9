package shard

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
)

// document is a row of the files that these tests write.
type document struct {
	ID   string  `parquet:"id"`
	Text string  `parquet:"text"`
	IDs  []int32 `parquet:"ids"` // a bare repeated field: the oldest form of a list
}

// writeDocuments writes n documents of about size bytes into one row group.
func writeDocuments(t testing.TB, n, size int, options ...parquet.WriterOption) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "documents.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := parquet.NewGenericWriter[document](f, options...)
	for i := range n {
		if _, err := w.Write([]document{testDocument(i, size)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

const words = "the quick brown fox jumps over a lazy dog while seven wizards box and vex my jolly quartz sphinx "

func testDocument(i, size int) document {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	var b strings.Builder
	b.Grow(size + len(words))
	for b.Len() < size {
		k := r.IntN(len(words) - 20)
		b.WriteString(words[k : k+20])
	}
	return document{ID: fmt.Sprintf("d%07d", i), Text: b.String(), IDs: []int32{int32(i), 1, 2}[:i%4]}
}

// TestReadLargeRowGroup reads a row group that is far larger than the heap may
// become meanwhile.
func TestReadLargeRowGroup(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 320 MB")
	}
	const rows, size = 20_000, 16 << 10
	path := writeDocuments(t, rows, size, parquet.Compression(&parquet.Snappy))
	in := inputOf(t, path)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	foot, err := readFooter(f, in.Size)
	if err != nil || len(foot.groups) != 1 || foot.groups[0].chunks[1].uncompressed < 300<<20 {
		t.Fatalf("not the file that is wanted: %v", err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	for range 3 {
		runtime.GC() // what the writer's pools held takes more than one to go
	}
	var base runtime.MemStats
	runtime.ReadMemStats(&base)
	var peak atomic.Uint64
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak.Store(max(peak.Load(), m.HeapAlloc))
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	for _, r := range [][2]int64{{0, rows - 1}, {rows / 2, rows/2 + 99}} {
		start := time.Now()
		job := testJob(t, path, t.TempDir(), textOptions(), r[0], r[1])
		rd, err := OpenRange(context.Background(), job)
		if err != nil {
			t.Fatal(err)
		}
		total, i := 0, r[0]
		for ; ; i++ {
			row, err := rd.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			total += len(row.Text)
			if i%997 == 0 && row.Text != testDocument(int(i), size).Text {
				t.Fatalf("row %d differs", i)
			}
		}
		if i != r[1]+1 {
			t.Fatalf("rows %v: ended before %d", r, i)
		}
		rd.Close()
		t.Logf("rows %v: %d MB in %v", r, total>>20, time.Since(start))
	}
	close(stop)
	<-done
	grown := (int64(peak.Load()) - int64(base.HeapAlloc)) >> 20
	if t.Logf("heap grew by %d MB at most", grown); grown > 32 {
		t.Fail()
	}
}

func TestReadLegacyLists(t *testing.T) {
	path := writeDocuments(t, 1000, 10)
	for k, row := range readAll(t, testJob(t, path, t.TempDir(), idsOptions("ids"), 300, 999)) {
		want := testDocument(300+k, 1).IDs
		if fmt.Sprint(row.IDs) != fmt.Sprint(want) || row.IDs == nil {
			t.Fatalf("row %d: %v, want %v", 300+k, row.IDs, want)
		}
	}
	// The other old form: a LIST group whose repeated field is the element.
	list := &node{name: "ids", typ: parquet.List(parquet.Leaf(parquet.Int64Type)).Type(), rep: 1, fields: []parquet.Field{
		leafNode("array", parquet.Int64Type, 2),
	}}
	root := &node{name: "schema", typ: groupType, fields: []parquet.Field{list}}
	var b bytes.Buffer
	w := parquet.NewWriter(&b, parquet.NewSchema("schema", root)) //nolint:staticcheck // columns are made here
	for _, row := range []parquet.Row{
		{parquet.NullValue().Level(0, 0, 0)},
		{parquet.NullValue().Level(0, 1, 0)},
		{parquet.Int64Value(7).Level(0, 2, 0), parquet.Int64Value(8).Level(1, 2, 0)},
	} {
		if _, err := w.WriteRows([]parquet.Row{row}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "two-level.parquet")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := readAll(t, testJob(t, path, t.TempDir(), idsOptions("ids"), 0, 2))
	if got := fmt.Sprint(rows[0].Null, rows[0].IDs, rows[1].Null, rows[1].IDs, rows[2].IDs); got != "true [] false [] [7 8]" {
		t.Fatal(got)
	}
}

// TestReadMixedCodecs reads a file whose row groups are compressed differently,
// as concatenating files without rewriting them gives.
func TestReadMixedCodecs(t *testing.T) {
	a, b := fixtures(t, "enc-plain-snappy-v1")[0], fixtures(t, "enc-plain-zstd-v1")[0]
	ra, rb := readFoot(t, a), readFoot(t, b)
	file := &spliced{first: ra.bytes, second: rb.bytes}
	foot := *ra.foot
	foot.groups = slices.Clone(ra.foot.groups)
	for _, g := range rb.foot.groups {
		g.first += fixtureRows
		g.chunks = append([]chunk(nil), g.chunks...)
		for i := range g.chunks {
			g.chunks[i].start += int64(len(ra.bytes))
			g.chunks[i].end += int64(len(ra.bytes))
		}
		foot.groups = append(foot.groups, g)
	}
	c := newColumn(context.Background(), file, &foot, foot.leaves[1], 0)
	for i := range int64(2 * fixtureRows) {
		var got string
		if err := c.row(func(e entry) error { got = string(e.val); return nil }); err != nil {
			t.Fatal(err)
		}
		if row := i % fixtureRows; !fixtureNull(row) && got != fixtureText(row) {
			t.Fatalf("row %d: %q", i, got)
		}
	}
}

type footed struct {
	bytes []byte
	foot  *footer
}

func readFoot(t testing.TB, path string) footed {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	foot, err := readFooter(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return footed{b, foot}
}

type spliced struct{ first, second []byte }

func (s *spliced) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(append(s.first[:len(s.first):len(s.first)], s.second...)).ReadAt(p, off)
}

func TestLz4Hadoop(t *testing.T) {
	// Two frames of literals: LZ4 blocks with a token of 5 literals each.
	frame := func(s string) []byte {
		b := append([]byte{byte(len(s)) << 4}, s...)
		h := binary.BigEndian.AppendUint32(nil, uint32(len(s)))
		return append(binary.BigEndian.AppendUint32(h, uint32(len(b))), b...)
	}
	dst := make([]byte, 10)
	if err := decompress(codecLz4Hadoop, dst, append(frame("hello"), frame("world")...)); err != nil || string(dst) != "helloworld" {
		t.Fatalf("%q (%v)", dst, err)
	}
	if err := decompress(codecLz4Hadoop, dst[:5], frame("hello")[8:]); err != nil || string(dst[:5]) != "hello" {
		t.Fatalf("unframed: %q (%v)", dst[:5], err)
	}
}

func BenchmarkRead(b *testing.B) {
	for _, codec := range []struct {
		name string
		opt  parquet.WriterOption
	}{{"none", parquet.Compression(&parquet.Uncompressed)}, {"snappy", parquet.Compression(&parquet.Snappy)}, {"zstd", parquet.Compression(&parquet.Zstd)}} {
		const rows, size = 8000, 4 << 10
		path := writeDocuments(b, rows, size, codec.opt)
		job := testJob(b, path, b.TempDir(), textOptions(), 0, rows-1)
		b.Run(codec.name, func(b *testing.B) {
			b.ReportAllocs()
			total := 0
			for b.Loop() {
				r, err := OpenRange(context.Background(), job)
				if err != nil {
					b.Fatal(err)
				}
				total = 0
				for {
					row, err := r.Next()
					if err == io.EOF {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					total += len(row.Text)
				}
				r.Close()
			}
			b.SetBytes(int64(total))
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
