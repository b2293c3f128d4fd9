package outdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/testkit/shardtest"
)

var testMeta = shard.Metadata{Precision: "fp32", Engine: "cpu", Device: "a CPU", Program: "v0"}

// fakeScore is a score for a row, with every sort of null and error among them.
func fakeScore(row shard.Row, perToken bool) score.Score {
	s := score.Score{Row: row.Index, Bytes: int64(len(row.Text)), Tokens: row.Index % 6, Truncated: row.Index%10 == 0}
	s.SumNLL = 1.25 * float64(s.Tokens*(row.Index+1))
	s.Top1 = s.Tokens / 2
	if row.IDs != nil {
		s.Bytes = -1
	}
	if row.Null {
		s = score.Score{Row: row.Index, Bytes: -1, Error: "the text is null"}
	}
	if perToken && s.Error == "" {
		s.TokenIDs = []int32{0}
		for k := range s.Tokens {
			s.TokenIDs = append(s.TokenIDs, int32(k*100))
			s.TokenNLL = append(s.TokenNLL, float32(k)/4)
		}
	}
	return s
}

// writeJob reads a job's rows, scores them with fakeScore and commits.
func writeJob(t testing.TB, job score.Job, change func(*score.Score)) (shard.Committed, error) {
	t.Helper()
	ctx := context.Background()
	r, err := shard.OpenRange(ctx, job)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w, err := Create(ctx, job, r.Columns(), testMeta)
	if err != nil {
		return shard.Committed{}, err
	}
	defer w.Abort()
	for range job.Rows() {
		row, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		s := fakeScore(row, job.Options.PerToken)
		if change != nil {
			change(&s)
		}
		if err := w.Write(s, row.Kept); err != nil {
			return shard.Committed{}, err
		}
	}
	return w.Commit(ctx)
}

// names lists all files below dir.
func names(t testing.TB, dir string) []string {
	t.Helper()
	var s []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			s = append(s, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWriteAndInspect(t *testing.T) {
	out := t.TempDir()
	path := shardtest.Fixtures(t, "enc-plain-zstd-v1")[0]
	job := shardtest.Job(t, path, out, shardtest.TextOptions(), 20, 219)
	c, err := writeJob(t, job, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, out),
		[]string{"enc-plain-zstd-v1/rows-000000000020-000000000219.parquet"}; len(got) != 1 || got[0] != want[0] {
		t.Fatalf("files %v, want %v", got, want)
	}
	back, err := shard.Inspect(t.Context(), filepath.Join(out, job.Output))
	if err != nil || back != c {
		t.Fatalf("inspect: %+v (%v), committed %+v", back, err, c)
	}
	if c.Job != job.ID || c.Totals.Documents != 200 || c.Totals.Failed != 18 || c.Existed || c.First != 20 ||
		c.Last != 219 {
		t.Fatalf("committed %+v", c)
	}
	var n, tokens int64
	if err := shard.ReadScores(t.Context(), back.Path, func(s score.Score) error {
		n++
		tokens += s.Tokens
		return nil
	}); err != nil || n != c.Totals.Documents || tokens != c.Totals.Tokens {
		t.Fatalf("read back %d rows of %d tokens (%v), committed %+v", n, tokens, err, c)
	}
	if v, err := shard.Verify(t.Context(), job, true); err != nil || v != c { // totals and digest made anew
		t.Fatalf("verified %+v (%v), committed %+v", v, err, c)
	}
}

func TestWriteIsDeterministic(t *testing.T) {
	var first []byte
	out := filepath.Join(t.TempDir(), "out") // part of nothing that is written
	for range 3 {
		job := shardtest.Job(t, shardtest.Fixtures(t, "kinds")[0], out, shardtest.PerToken(), 0, 249)
		c, err := writeJob(t, job, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(c.Path)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		} else if string(first) != string(b) {
			t.Fatal("two writes of the same rows differ")
		}
		if err := os.Remove(c.Path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCommitTwice(t *testing.T) {
	out := t.TempDir()
	job := shardtest.Job(t, shardtest.Fixtures(t, "required")[0], out, shardtest.TextOptions(), 0, 99)
	first, err := writeJob(t, job, nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := writeJob(t, job, nil)
	if err != nil || !second.Existed || second.Digest != first.Digest {
		t.Fatalf("second attempt: %+v (%v)", second, err)
	}
	_, err = writeJob(t, job, func(s *score.Score) { s.SumNLL += 1e-12 })
	if !errors.Is(err, shard.ErrConflict) || !strings.Contains(err.Error(), "digest") {
		t.Fatalf("other scores: %v", err)
	}
	if n := names(t, out); len(n) != 1 {
		t.Fatalf("left behind: %v", n)
	}
	if back, err := shard.Inspect(t.Context(), first.Path); err != nil || back != first {
		t.Fatalf("the first was touched: %+v (%v)", back, err)
	}
}

func TestCommitOverForeignFiles(t *testing.T) {
	for name, tc := range map[string]struct {
		body     func(t *testing.T, good []byte) []byte
		conflict bool
	}{
		"torn":  {func(t *testing.T, good []byte) []byte { return good[:len(good)/2] }, false},
		"empty": {func(t *testing.T, good []byte) []byte { return nil }, false},
		"zeros": {func(t *testing.T, good []byte) []byte { return make([]byte, len(good)) }, false},
		"other parquet": {func(t *testing.T, good []byte) []byte {
			b, _ := os.ReadFile(shardtest.Fixtures(t, "required")[0])
			return b
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			job := shardtest.Job(t, shardtest.Fixtures(t, "required")[0], out, shardtest.TextOptions(), 0, 99)
			c, err := writeJob(t, job, nil)
			if err != nil {
				t.Fatal(err)
			}
			good, err := os.ReadFile(c.Path)
			if err != nil {
				t.Fatal(err)
			}
			bad := tc.body(t, good)
			if err := os.WriteFile(c.Path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			again, err := writeJob(t, job, nil)
			now, _ := os.ReadFile(c.Path)
			switch {
			case tc.conflict && (!errors.Is(err, shard.ErrConflict) || string(now) != string(bad)):
				t.Fatalf("%v; file changed: %v", err, string(now) != string(bad))
			case !tc.conflict && (err != nil || again.Existed || string(now) != string(good)):
				t.Fatalf("%+v (%v)", again, err)
			}
			if n := names(t, out); len(n) != 1 {
				t.Fatalf("left behind: %v", n)
			}
		})
	}
}

func TestCommitAtOnce(t *testing.T) {
	out := t.TempDir()
	job := shardtest.Job(t, shardtest.Fixtures(t, "required")[0], out, shardtest.TextOptions(), 0, 249)
	const writers = 8
	var wg sync.WaitGroup
	var mu sync.Mutex
	existed := 0
	for range writers {
		wg.Go(func() {
			c, err := writeJob(t, job, nil)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if c.Existed {
				existed++
			}
		})
	}
	wg.Wait()
	if n := names(t, out); len(n) != 1 || existed != writers-1 {
		t.Fatalf("files %v, %d existed", n, existed)
	}
}

func TestWriteRefuses(t *testing.T) {
	ctx := context.Background()
	in := shardtest.Fixtures(t, "required")[0]
	for name, tc := range map[string]struct {
		scores []score.Score
		want   error
	}{
		"a gap":          {[]score.Score{{Row: 0}, {Row: 2}}, shard.ErrRows},
		"a row twice":    {[]score.Score{{Row: 0}, {Row: 0}}, shard.ErrRows},
		"too few":        {[]score.Score{{Row: 0}}, shard.ErrRows},
		"too many":       {[]score.Score{{Row: 0}, {Row: 1}, {Row: 2}, {Row: 3}}, shard.ErrRows},
		"not a number":   {[]score.Score{{Row: 0, SumNLL: nan()}}, shard.ErrRows},
		"too much top-1": {[]score.Score{{Row: 0, Tokens: 1, Top1: 2}}, shard.ErrRows},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			w, err := Create(ctx, shardtest.Job(t, in, out, shardtest.TextOptions(), 0, 2), nil, testMeta)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range tc.scores {
				if err = w.Write(s, shard.Kept{}); err != nil {
					break
				}
			}
			_, commitErr := w.Commit(ctx)
			if !errors.Is(commitErr, tc.want) || (err != nil && !errors.Is(err, tc.want)) {
				t.Fatalf("write %v, commit %v", err, commitErr)
			}
			if err := w.Abort(); err != nil {
				t.Fatal(err)
			}
			if n := names(t, out); len(n) != 0 {
				t.Fatalf("left behind: %v", n)
			}
		})
	}
	t.Run("out of OUT", func(t *testing.T) {
		out, elsewhere := t.TempDir(), t.TempDir()
		if err := os.Symlink(elsewhere, filepath.Join(out, "required")); err != nil {
			t.Skip(err)
		}
		if _, err := Create(ctx, shardtest.Job(t, in, out, shardtest.TextOptions(), 0, 2), nil, testMeta); err == nil {
			t.Fatal("a link out of OUT was followed")
		}
		if n := names(t, elsewhere); len(n) != 0 {
			t.Fatalf("written outside: %v", n)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		out := t.TempDir()
		ctx, cancel := context.WithCancel(ctx)
		w, err := Create(ctx, shardtest.Job(t, in, out, shardtest.TextOptions(), 0, 0), nil, testMeta)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(score.Score{}, shard.Kept{}); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := w.Commit(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if n := names(t, out); len(n) != 0 {
			t.Fatalf("left behind: %v", n)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	for _, perToken := range []bool{false, true} {
		b.Run(fmt.Sprintf("perToken=%v", perToken), func(b *testing.B) {
			const rows, tokens = 5000, 400
			o := shardtest.TextOptions()
			o.PerToken = perToken
			job := shardtest.Job(b, shardtest.WriteDocuments(b, rows, 10), b.TempDir(), o, 0, rows-1)
			r, err := shard.OpenRange(context.Background(), job)
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			row, err := r.Next()
			if err != nil {
				b.Fatal(err)
			}
			s := score.Score{Tokens: tokens, Bytes: 1600, SumNLL: 1234.5, TokenIDs: make([]int32, tokens+1),
				TokenNLL: make([]float32, tokens)}
			for i := range s.TokenNLL {
				s.TokenIDs[i], s.TokenNLL[i] = int32(i*7919%49152), float32(i)/7
			}
			for b.Loop() {
				w, err := Create(context.Background(), job, r.Columns(), testMeta)
				if err != nil {
					b.Fatal(err)
				}
				for i := range int64(rows) {
					s.Row = i
					if err := w.Write(s, row.Kept); err != nil {
						b.Fatal(err)
					}
				}
				c, err := w.Commit(context.Background())
				if err != nil {
					b.Fatal(err)
				}
				if err := os.Remove(c.Path); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func nan() float64 { z := 0.0; return z / z }
