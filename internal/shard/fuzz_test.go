package shard

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/score"
	"surprisal/internal/shard/pq"
	"surprisal/internal/testkit/shardtest"
)

// Fuzzed files are whole files, as anybody could have made them: nothing may
// panic, hang, or take memory by what a file only claims.

func seed(f *testing.F) {
	for _, path := range shardtest.Fixtures(f, "*") {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) < 32<<10 {
			f.Add(b, uint8(0))
			f.Add(b, uint8(1))
		}
	}
}

// fuzzOptions are what is asked of a file, by a byte of the fuzzer's.
func fuzzOptions(how uint8) score.Options {
	o := shardtest.TextOptions()
	if how&1 != 0 {
		o = shardtest.IDsOptions([]string{"ids32", "ids64", "idsfull", "list"}[how>>1&3])
	}
	o.Keep = []string{"*"}
	return o
}

// within fails if do takes longer, or more memory, than any small file may.
func within(t *testing.T, do func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	do()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if took > 20*time.Second {
		t.Fatalf("took %v", took)
	}
	// Everything ever allocated; what was held at once is less.
	if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 8<<10 {
		t.Fatalf("allocated %d MB", mb)
	}
}

func FuzzPlan(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte, how uint8) {
		within(t, func() {
			in := score.Input{Path: "/x.parquet", Rel: "x.parquet", Size: int64(len(b)), Version: "1"}
			opt := PlanOptions{Options: fuzzOptions(how), JobTokens: 1 << 10}.withDefaults()
			p, err := planFile(context.Background(), bytes.NewReader(b), in, opt)
			if err != nil {
				return
			}
			checkPlan(t, p)
		})
	})
}

func FuzzRead(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte, how uint8) {
		within(t, func() { fuzzRead(t, b, how) })
	})
}

func fuzzRead(t *testing.T, b []byte, how uint8) {
	foot, err := pq.ReadFooter(bytes.NewReader(b), int64(len(b)))
	if err != nil || foot.Rows == 0 {
		return
	}
	first := int64(how) % foot.Rows
	r := &Reader{next: first, job: score.Job{First: first, Last: min(foot.Rows-1, first+2000),
		Options: fuzzOptions(how)}}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.open(ctx, bytes.NewReader(b), foot); err != nil {
		return
	}
	// What is kept is written again: the writer must take it or say an error.
	root, err := outputSchema(r.columns, score.Options{})
	if err != nil {
		return
	}
	//lint:ignore SA1019 as in write.go
	var w *parquet.Writer
	if pq.Recovered(func() error {
		w = parquet.NewWriter(io.Discard, parquet.NewSchema("schema", root)) //nolint:staticcheck // as in write.go
		return nil
	}) != nil {
		return
	}
	arrowSchema(r.columns, score.Options{})
	out := &Writer{pq: w, keptN: len(r.columns.leaves), ids: -1, digest: newDigester(score.Options{}),
		next: r.job.First, job: r.job}
	size := 0
	for n := int64(0); size < 64<<20; n++ {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			if n != r.job.Rows() {
				t.Fatalf("%d rows of %d", n, r.job.Rows())
			}
			break
		}
		if err != nil {
			return
		}
		size += len(row.Text) + 4*len(row.IDs) + row.Kept.Size()
		if row.Index != first+n {
			t.Fatalf("row %d, want %d", row.Index, first+n)
		}
		if out.Write(score.Score{Row: row.Index}, row.Kept) != nil {
			return
		}
	}
	_ = pq.Recovered(w.Close)
}
