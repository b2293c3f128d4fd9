package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/shard/pq"
	"surprisal/internal/testkit/shardtest"
)

// TestReadLargeRowGroup reads a row group that is far larger than the heap may
// become meanwhile.
func TestReadLargeRowGroup(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 320 MB")
	}
	const rows, size = 20_000, 16 << 10
	path := shardtest.WriteDocuments(t, rows, size, parquet.Compression(&parquet.Snappy))
	in := shardtest.Input(t, path)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	foot, err := pq.ReadFooter(f, in.Size)
	if err != nil || foot.RowGroups() != 1 || foot.GroupSize(0, textOf(t, foot)) < 300<<20 {
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
		job := shardtest.Job(t, path, t.TempDir(), shardtest.TextOptions(), r[0], r[1])
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
			if i%997 == 0 && row.Text != shardtest.DocumentAt(int(i), size).Text {
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
	path := shardtest.WriteDocuments(t, 1000, 10)
	for k, row := range readAll(t, shardtest.Job(t, path, t.TempDir(), shardtest.IDsOptions("ids"), 300, 999)) {
		want := shardtest.DocumentAt(300+k, 1).IDs
		if fmt.Sprint(row.IDs) != fmt.Sprint(want) || row.IDs == nil {
			t.Fatalf("row %d: %v, want %v", 300+k, row.IDs, want)
		}
	}
	// The other old form: a LIST group whose repeated field is the element.
	element := parquet.Repeated(parquet.Leaf(parquet.Int64Type))
	root := parquet.Group{"ids": parquet.Optional(listOf{parquet.Group{"array": element}})}
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
	rows := readAll(t, shardtest.Job(t, path, t.TempDir(), shardtest.IDsOptions("ids"), 0, 2))
	if got := fmt.Sprint(rows[0].Null, rows[0].IDs, rows[1].Null, rows[1].IDs,
		rows[2].IDs); got != "true [] false [] [7 8]" {
		t.Fatal(got)
	}
}

func textOf(t testing.TB, foot *pq.Footer) *pq.Leaf {
	t.Helper()
	e, err := foot.Top("text")
	if err != nil {
		t.Fatal(err)
	}
	return e.Leaf
}

// listOf is a group that is a LIST.
type listOf struct{ parquet.Node }

func (listOf) Type() parquet.Type { return parquet.List(parquet.Leaf(parquet.Int64Type)).Type() }

func BenchmarkRead(b *testing.B) {
	for _, codec := range []struct {
		name string
		opt  parquet.WriterOption
	}{{"none", parquet.Compression(&parquet.Uncompressed)}, {"snappy", parquet.Compression(&parquet.Snappy)},
		{"zstd", parquet.Compression(&parquet.Zstd)}} {
		const rows, size = 8000, 4 << 10
		path := shardtest.WriteDocuments(b, rows, size, codec.opt)
		job := shardtest.Job(b, path, b.TempDir(), shardtest.TextOptions(), 0, rows-1)
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
