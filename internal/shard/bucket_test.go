package shard

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/store"
	"surprisal/internal/testkit/storetest"
)

// remoteJob is job with its input at a URL.
func remoteJob(t testing.TB, job score.Job, url string) score.Job {
	t.Helper()
	info, err := store.Stat(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	in := score.Input{Path: info.Name, Rel: job.Input.Rel, Size: info.Size, Version: info.Version}
	return score.NewJob(testManifest(job.Out, job.Options), in, job.First, job.Last)
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBucketRows: rows that come over ranges of a bucket are those of the local
// file, while one answer in twenty is bad in some way.
func TestBucketRows(t *testing.T) {
	s := storetest.S3(t)
	p := storetest.NewProxy(t, s.URL)
	p.Fail(oneInTwenty())
	o := textOptions()
	o.Keep = []string{"*"}
	for _, path := range fixtures(t, "*") {
		key := filepath.Base(path)
		s.Put(t, key, mustRead(t, path))
		for i, r := range ranges {
			if testing.Short() && i%3 != 0 {
				continue
			}
			job := testJob(t, path, t.TempDir(), o, r[0], r[1])
			want, werr := tryReadAll(job)
			got, gerr := tryReadAll(remoteJob(t, job, storetest.URL(key+"?endpoint="+p.URL)))
			if (werr == nil) != (gerr == nil) {
				t.Fatalf("%s %v: %v and %v", key, r, werr, gerr)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s %v: %d rows differ from the local %d", key, r, len(got), len(want))
			}
		}
	}
}

// oneInTwenty fails with one after another of all faults but a wait of seconds.
func oneInTwenty() func(int, *http.Request) storetest.Fault {
	rng := rand.New(rand.NewPCG(5, 5)) // the proxy calls one at a time
	faults := []storetest.Fault{storetest.Busy, storetest.Reset, storetest.Short, storetest.Slow, storetest.Lost}
	return func(int, *http.Request) storetest.Fault {
		if rng.IntN(20) > 0 {
			return storetest.None
		}
		return faults[rng.IntN(len(faults))]
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
				b[j] = words[rng.IntN(len(words))]
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
	for name, shape := range map[string][3]int{"many row groups": {40, 500, 2000}, "one row group": {1, 20000, 2000}, "few": {3, 6000, 2000}} {
		t.Run(name, func(t *testing.T) {
			path := webFile(t, shape[0], shape[1], shape[2])
			key := strings.ReplaceAll(name, " ", "-")
			s.Put(t, key, mustRead(t, path))
			url := storetest.URL(key + "?endpoint=" + p.URL)
			o := textOptions()
			o.Keep = []string{"id"}
			p.Take()
			inputs, _, err := Discover(t.Context(), []string{url}, "")
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
			local, err := Plan(t.Context(), inputOf(t, path), opt)
			if err != nil || !reflect.DeepEqual(local.Cuts, plan.Cuts) {
				t.Errorf("cuts are %v, of the local file %v", plan.Cuts, local.Cuts)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			foot, err := readFooter(f, inputs[0].Size)
			if err != nil {
				t.Fatal(err)
			}
			needed := int64(0)
			for _, g := range foot.groups {
				for _, column := range []string{"text", "id"} {
					e, err := foot.top(column)
					if err != nil {
						t.Fatal(err)
					}
					needed += g.chunks[e.leaf.index].compressed
				}
			}
			m := testManifest(t.TempDir(), o)
			m.Files = []score.FilePlan{plan}
			var rows int64
			for _, job := range m.Jobs() {
				want := readAll(t, testJob(t, path, m.Out, o, job.First, job.Last))
				got := readAll(t, job)
				if !reflect.DeepEqual(got, want) {
					t.Fatal("other rows than the local file's")
				}
				rows += int64(len(got))
			}
			rs = p.Take()
			n := storetest.Bytes(rs)
			t.Logf("scoring: %d jobs, %d rows: %d bytes in %d requests, %.3f of the needed columns' %d", len(m.Jobs()), rows, n, len(rs), float64(n)/float64(needed), needed)
			if float64(n) > 1.1*float64(needed) {
				t.Errorf("more than 1.1 of what was needed: %+v", rs)
			}
		})
	}
}

// TestBucketCommit publishes into a bucket: once, the same again, and others' scores.
func TestBucketCommit(t *testing.T) {
	s := storetest.S3(t)
	p := storetest.NewProxy(t, s.URL)
	local := testJob(t, fixtures(t, "required")[0], t.TempDir(), textOptions(), 0, 99)
	if _, err := writeJob(t, local, nil); err != nil {
		t.Fatal(err)
	}
	want := mustRead(t, filepath.Join(local.Out, local.Output))
	out := "s3://" + storetest.Bucket + "/out?endpoint=" + p.URL
	job := testJob(t, fixtures(t, "required")[0], out, textOptions(), 0, 99)
	key := "out/" + job.Output
	// The first answer is lost: the file is there, and the attempt finds it.
	p.Fail(func(n int, r *http.Request) storetest.Fault {
		if n == 0 && r.Method == http.MethodPut {
			return storetest.Lost
		}
		return storetest.None
	})
	if c, err := writeJob(t, job, nil); err != nil || !c.Existed {
		t.Fatalf("%+v (%v)", c, err)
	}
	if !bytes.Equal(s.Get(t, key), want) {
		t.Error("a bucket has other bytes than a folder")
	}
	if c, err := writeJob(t, job, nil); err != nil || !c.Existed {
		t.Fatalf("again: %+v (%v)", c, err)
	}
	_, err := writeJob(t, job, func(s *score.Score) { s.SumNLL++ })
	if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "digest") {
		t.Fatalf("other scores: %v", err)
	}
	if !bytes.Equal(s.Get(t, key), want) {
		t.Error("what was there was touched")
	}
	s.Put(t, key, []byte("torn"))
	if c, err := writeJob(t, job, nil); err != nil || c.Existed {
		t.Fatalf("over a torn file: %+v (%v)", c, err)
	}
	if c, err := Inspect(t.Context(), place.Join(out, job.Output)); err != nil || c.Job != job.ID {
		t.Fatalf("%+v (%v)", c, err)
	}
	rows := 0
	if err := ReadScores(t.Context(), place.Join(out, job.Output), func(score.Score) error { rows++; return nil }); err != nil || rows != 100 {
		t.Fatalf("%d rows (%v)", rows, err)
	}
	if keys, uploads := s.Keys(t, ""), s.Uploads(t); len(keys) != 1 || uploads != 0 {
		t.Errorf("left behind: %v, %d uploads", keys, uploads)
	}
	m := testManifest(out, textOptions())
	if _, err := ReadManifest(t.Context(), out); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := WriteManifest(t.Context(), out, m); err != nil {
		t.Fatal(err)
	}
	if err := WriteManifest(t.Context(), out, m); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("a second manifest: %v", err)
	}
	if back, err := ReadManifest(t.Context(), out); err != nil || back.Run != m.Run {
		t.Fatalf("%+v (%v)", back, err)
	}
	n := 0
	if err := InspectAll(t.Context(), out, func(_ string, c Committed, err error) error { n++; return err }); err != nil || n != 1 {
		t.Fatalf("%d outputs (%v)", n, err)
	}
}

// TestBucketChanged: an input that is another file now fails its jobs with that reason.
func TestBucketChanged(t *testing.T) {
	s := storetest.S3(t)
	path := fixtures(t, "required")[0]
	body := mustRead(t, path)
	s.Put(t, "a.parquet", body)
	job := remoteJob(t, testJob(t, path, t.TempDir(), textOptions(), 0, 249), storetest.URL("a.parquet"))
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

func TestBucketDiscover(t *testing.T) {
	s := storetest.S3(t)
	for _, key := range []string{
		"fw/a/000.parquet", "fw/a/001.parquet", "fw/b/000.parquet", "fw/b/x.txt", "fw/_tmp/h.parquet", "fw/b/.hidden.parquet",
		"out/fw/rows.parquet", "fwx/no.parquet", "sub/fw/a/000.parquet", "bad/../x.parquet", "bad/a//y.parquet",
	} {
		if !strings.Contains(key, "..") && !strings.Contains(key, "//") {
			s.Put(t, key, []byte("x"))
		}
	}
	u := storetest.URL
	for name, tc := range map[string]struct {
		args []string
		want string
		err  string
	}{
		"file":        {[]string{u("fw/a/000.parquet")}, "000.parquet", ""},
		"folder":      {[]string{u("fw")}, "a/000.parquet a/001.parquet b/000.parquet", ""},
		"slash":       {[]string{u("fw/")}, "a/000.parquet a/001.parquet b/000.parquet", ""},
		"glob":        {[]string{u("fw/**/*.parquet")}, "a/000.parquet a/001.parquet b/000.parquet", ""},
		"question":    {[]string{u("fw/a/00?.parquet")}, "000.parquet 001.parquet", ""},
		"braces":      {[]string{u("fw/{a,b}/000.parquet")}, "a/000.parquet b/000.parquet", ""},
		"folder glob": {[]string{u("fw/[b-c]")}, "b/000.parquet", ""},
		"bucket":      {[]string{"s3://" + storetest.Bucket}, "fw/a/000.parquet fw/a/001.parquet fw/b/000.parquet fwx/no.parquet sub/fw/a/000.parquet", ""},
		"clash":       {[]string{u("fw/a"), u("fw/b")}, "001.parquet a/000.parquet b/000.parquet", ""},
		"twice":       {[]string{u("fw/a"), u("fw/a/*")}, "000.parquet 001.parquet", ""},
		"text file":   {[]string{u("fw/b/x.txt")}, "x.txt", ""},
		"nothing":     {[]string{u("nothing")}, "", "there is no such file or folder"},
		"no match":    {[]string{u("fw/*.parquet")}, "", "matches no parquet file"},
		"no parquet":  {[]string{u("fw/_tmp2"), u("fw")}, "", "there is no such"},
		"no bucket":   {[]string{"s3://nobucket/x"}, "", "there is no bucket nobucket"},
		"scheme":      {[]string{"ftp://h/x"}, "", "are supported"},
	} {
		t.Run(name, func(t *testing.T) {
			inputs, problems, err := Discover(t.Context(), tc.args, u("out"))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("got %v, %v", inputs, err)
				}
				return
			}
			var rels []string
			for _, in := range inputs {
				rels = append(rels, in.Rel)
				if in.Version == "" || !strings.HasPrefix(in.Path, "s3://") {
					t.Errorf("%+v", in)
				}
			}
			if got := strings.Join(rels, " "); err != nil || len(problems) > 0 || got != tc.want {
				t.Fatalf("%s, want %s (%v, %v)", got, tc.want, problems, err)
			}
		})
	}
}
