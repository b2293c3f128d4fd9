package shard

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/score"
	"surprisal/internal/shard/discover"
	"surprisal/internal/shard/pq"
	"surprisal/internal/testkit/shardtest"
	"surprisal/internal/testkit/storetest"
)

// TestBucketRows: rows that come over ranges of a bucket are those of the local
// file, while one answer in twenty is bad in some way.
func TestBucketRows(t *testing.T) {
	s := storetest.S3(t)
	p := storetest.NewProxy(t, s.URL)
	p.Fail(shardtest.OneInTwenty())
	o := shardtest.TextOptions()
	o.Keep = []string{"*"}
	for _, path := range shardtest.Fixtures(t, "*") {
		key := filepath.Base(path)
		s.Put(t, key, shardtest.Read(t, path))
		for i, r := range shardtest.Ranges {
			if testing.Short() && i%3 != 0 {
				continue
			}
			job := shardtest.Job(t, path, t.TempDir(), o, r[0], r[1])
			want, werr := tryReadAll(job)
			got, gerr := tryReadAll(shardtest.RemoteJob(t, job, storetest.URL(key+"?endpoint="+p.URL)))
			if (werr == nil) != (gerr == nil) {
				t.Fatalf("%s %v: %v and %v", key, r, werr, gerr)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s %v: %d rows differ from the local %d", key, r, len(got), len(want))
			}
		}
	}
}

// webDocument is a row as web corpora have it.
type webDocument struct {
	Text     string `parquet:"text"`
	ID       string `parquet:"id"`
	Dump     string `parquet:"dump"`
	URL      string `parquet:"url"`
	FilePath string `parquet:"file_path"`
	Tokens   int64  `parquet:"token_count"`
}

func webFile(t testing.TB, groups, rows, size int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "web.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rng := rand.New(rand.NewPCG(9, 9))
	w := parquet.NewGenericWriter[webDocument](f, parquet.Compression(&parquet.Snappy), parquet.PageBufferSize(1<<20))
	for g := range groups {
		for i := range rows {
			b := make([]byte, size/2+rng.IntN(size))
			for j := range b {
				b[j] = shardtest.Words[rng.IntN(len(shardtest.Words))]
			}
			if _, err := w.Write([]webDocument{{
				string(b), fmt.Sprintf("<urn:uuid:%016x%016x>", rng.Uint64(), rng.Uint64()), "CC-MAIN-2024-10",
				fmt.Sprintf("https://example.org/%x/%x", rng.Uint64(), i), strings.Repeat(fmt.Sprintf("s3://c/%x", rng.Uint64()), 30), int64(len(b) / 4),
			}}); err != nil {
				t.Fatal(err)
			}
		}
		if g < groups-1 {
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

// TestBucketBytes counts what crosses the network.
func TestBucketBytes(t *testing.T) {
	s := storetest.S3(t)
	p := storetest.NewProxy(t, s.URL)
	for name, shape := range map[string][3]int{"many row groups": {40, 500, 2000}, "one row group": {1, 20000, 2000},
		"few": {3, 6000, 2000}} {
		t.Run(name, func(t *testing.T) {
			path := webFile(t, shape[0], shape[1], shape[2])
			key := strings.ReplaceAll(name, " ", "-")
			s.Put(t, key, shardtest.Read(t, path))
			url := storetest.URL(key + "?endpoint=" + p.URL)
			o := shardtest.TextOptions()
			o.Keep = []string{"id"}
			p.Take()
			inputs, _, err := discover.Inputs(t.Context(), []string{url}, "")
			if err != nil || len(inputs) != 1 {
				t.Fatal(inputs, err)
			}
			opt := PlanOptions{Options: o, JobTokens: 4_000_000} // dispatch.DefaultJobTokens
			plan, err := Plan(t.Context(), inputs[0], opt)
			if err != nil || plan.Error != "" {
				t.Fatal(plan.Error, err)
			}
			rs := p.Take()
			if n := storetest.Bytes(rs); n > 1<<20 {
				t.Errorf("planning read %d bytes in %d requests", n, len(rs))
			} else {
				t.Logf("planning: %d bytes of %d in %d requests", n, inputs[0].Size, len(rs))
			}
			local, err := Plan(t.Context(), shardtest.Input(t, path), opt)
			if err != nil || !reflect.DeepEqual(local.Cuts, plan.Cuts) {
				t.Errorf("cuts are %v, of the local file %v", plan.Cuts, local.Cuts)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			foot, err := pq.ReadFooter(f, inputs[0].Size)
			if err != nil {
				t.Fatal(err)
			}
			needed := int64(0)
			for _, column := range []string{"text", "id"} {
				e, err := foot.Top(column)
				if err != nil {
					t.Fatal(err)
				}
				needed += foot.StoredSize(e.Leaf)
			}
			var opener Opener
			m := shardtest.Manifest(t.TempDir(), o)
			m.Files = []score.FilePlan{plan}
			var rows int64
			for _, job := range m.Jobs() {
				want := readAll(t, shardtest.Job(t, path, m.Out, o, job.First, job.Last))
				got, err := readWith(&opener, job)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Fatal("other rows than the local file's")
				}
				rows += int64(len(got))
			}
			rs = p.Take()
			n := storetest.Bytes(rs)
			t.Logf("scoring: %d jobs, %d rows: %d bytes in %d requests, %.3f of the needed columns' %d", len(m.Jobs()),
				rows, n, len(rs), float64(n)/float64(needed), needed)
			if float64(n) > 1.1*float64(needed) {
				t.Errorf("more than 1.1 of what was needed: %+v", rs)
			}
		})
	}
}

// TestBucketChanged: an input that is another file now fails its jobs with that reason.
func TestBucketChanged(t *testing.T) {
	s := storetest.S3(t)
	path := shardtest.Fixtures(t, "required")[0]
	body := shardtest.Read(t, path)
	s.Put(t, "a.parquet", body)
	job := shardtest.RemoteJob(t, shardtest.Job(t, path, t.TempDir(), shardtest.TextOptions(), 0, 249),
		storetest.URL("a.parquet"))
	r, err := OpenRange(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s.Put(t, "a.parquet", append(body[:len(body):len(body)], "PAR1"...))
	if _, err := tryReadAll(job); !errors.Is(err, ErrInputChanged) {
		t.Fatalf("after: %v", err)
	}
}
