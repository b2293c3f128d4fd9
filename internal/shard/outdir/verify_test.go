package outdir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/pq"
	"surprisal/internal/testkit/shardtest"
)

// writeScores writes and commits a job's score file with made-up scores.
func writeScores(t *testing.T, job score.Job) shard.Committed {
	t.Helper()
	r, err := shard.OpenRange(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w, err := Create(t.Context(), job, r.Columns(), shard.Metadata{Precision: "fp32", Engine: "cpu", Device: "test",
		Program: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		s := score.Score{Row: row.Index, Bytes: int64(len(row.Text)), Tokens: row.Index % 5,
			SumNLL: float64(row.Index%5) * 1.5, Top1: row.Index % 2}
		s.Top1 = min(s.Top1, s.Tokens)
		for i := range s.Tokens {
			s.TokenIDs, s.TokenNLL = append(s.TokenIDs, int32(i)), append(s.TokenNLL, 1.5)
		}
		s.TokenIDs = append(s.TokenIDs, 7)
		if row.Null {
			s = score.Score{Row: row.Index, Bytes: -1, Error: "null text"}
		}
		if err := w.Write(s, row.Kept); err != nil {
			t.Fatal(err)
		}
	}
	c, err := w.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestVerifyFindsEveryFlippedBit flips a bit in each byte of a score file, one
// after another: no place is passed over.
func TestVerifyFindsEveryFlippedBit(t *testing.T) {
	o := shardtest.TextOptions()
	o.PerToken = true
	job := shardtest.Job(t, shardtest.Fixtures(t, "enc-plain-zstd-v1")[0], t.TempDir(), o, 3, 40)
	c := writeScores(t, job)
	if _, err := shard.Verify(t.Context(), job, true); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() {
		step = 13
	}
	for i := 0; i < len(whole); i += step {
		b := bytes.Clone(whole)
		b[i] ^= 1 << (i % 8)
		if err := os.WriteFile(c.Path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := shard.Verify(t.Context(), job, true)
		if !errors.Is(err, pq.ErrCorrupt) && !errors.Is(err, shard.ErrConflict) {
			t.Fatalf("byte %d of %d: %v", i, len(whole), err)
		}
	}
	for n := 0; n < len(whole); n += 1 + len(whole)/97 {
		if err := os.WriteFile(c.Path, whole[:n], 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := shard.Verify(t.Context(), job, true); !errors.Is(err, pq.ErrCorrupt) {
			t.Fatalf("cut at %d of %d: %v", n, len(whole), err)
		}
	}
}

// TestVerifyKeptColumns verifies score files that keep every column of every
// fixture.
func TestVerifyKeptColumns(t *testing.T) {
	n := 0
	for _, path := range shardtest.Fixtures(t, "*") {
		o := shardtest.TextOptions()
		o.Keep = []string{"*"}
		job := shardtest.Job(t, path, t.TempDir(), o, 57, 203)
		if r, err := shard.OpenRange(t.Context(), job); err != nil {
			continue // no such text column, or a clash: that is tested elsewhere
		} else if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		n++
		writeScores(t, job)
		if _, err := shard.Verify(t.Context(), job, true); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n < 3 {
		t.Errorf("only %d fixtures were kept", n)
	}
}

func TestVerifyAnothers(t *testing.T) {
	out := t.TempDir()
	path := shardtest.Fixtures(t, "enc-plain-zstd-v1")[0]
	a, b := shardtest.Job(t, path, out, shardtest.TextOptions(), 0, 9), shardtest.Job(t, path, out,
		shardtest.TextOptions(), 10, 19)
	c := writeScores(t, a)
	if _, err := shard.Verify(t.Context(), b, true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.Rename(c.Path, filepath.Join(out, b.Output)); err != nil {
		t.Fatal(err)
	}
	if _, err := shard.Verify(t.Context(), b, true); !errors.Is(err, shard.ErrConflict) {
		t.Errorf("another's: %v", err)
	}
	if err := os.Symlink(filepath.Join(out, b.Output), filepath.Join(out, a.Output)); err != nil {
		t.Fatal(err)
	}
	if _, err := shard.Verify(t.Context(), a, true); !errors.Is(err, pq.ErrCorrupt) {
		t.Errorf("a link: %v", err)
	}
}

func TestManifestCopy(t *testing.T) {
	out := t.TempDir()
	m := shardtest.Manifest(out, shardtest.TextOptions())
	if err := WriteManifest(t.Context(), out, m); err != nil {
		t.Fatal(err)
	}
	path, second := filepath.Join(out, score.ManifestName), filepath.Join(out, manifestCopy)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(whole, []byte(`"program": "test"`), []byte(`"program": "tess"`), 1)
	for name, damage := range map[string]func() error{
		"changed": func() error { return os.WriteFile(path, changed, 0o666) },
		"cut":     func() error { return os.Truncate(path, 40) },
		"gone":    func() error { return os.Remove(path) },
		"no copy": func() error { return os.Remove(second) },
		"bad copy": func() error {
			z, err := os.ReadFile(second)
			z[len(z)/2] ^= 1
			return errors.Join(err, os.WriteFile(second, z, 0o666))
		},
	} {
		if got, err := VerifyManifest(t.Context(), out); err != nil || got.Run != m.Run {
			t.Fatal(err)
		}
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		want := ErrManifestChanged
		if strings.HasSuffix(name, "copy") {
			want = ErrNoCopy
		}
		if got, err := VerifyManifest(t.Context(), out); !errors.Is(err, want) || got.Program != "test" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if err := RestoreManifest(t.Context(), out); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, whole) {
			t.Errorf("%s: not restored: %v", name, err)
		}
	}
}

func TestListAndQuarantine(t *testing.T) {
	out := t.TempDir()
	job := shardtest.Job(t, shardtest.Fixtures(t, "enc-plain-zstd-v1")[0], out, shardtest.TextOptions(), 0, 9)
	writeScores(t, job)
	dir := filepath.Dir(filepath.Join(out, job.Output))
	for _, name := range []string{".rows-run-1.ABC.tmp", "strange.parquet", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	list := func() string {
		t.Helper()
		s := ""
		if err := List(t.Context(), out, func(e Entry) error {
			s += fmt.Sprintf("%s %s;", e.Kind, e.Run)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if got := list(); got != "temporary run-1;scores ;parquet ;" {
		t.Error(got)
	}
	moved, err := Quarantine(t.Context(), out, job.Output)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(moved); err != nil {
		t.Error(err)
	}
	if got := list(); got != "quarantined ;temporary run-1;parquet ;" {
		t.Error(got)
	}
	if _, err := Quarantine(t.Context(), out, "../elsewhere"); err == nil {
		t.Error("a name outside OUT was moved")
	}
	if err := List(t.Context(), out, func(e Entry) error {
		err := Remove(t.Context(), out, e)
		if (err != nil) != (e.Kind == EntryParquet) {
			return fmt.Errorf("%s: %w", e.Kind, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if got := list(); got != "parquet ;" {
		t.Error(got)
	}
	if _, err := os.Stat(filepath.Join(out, quarantine)); err == nil {
		t.Error("the empty quarantine is still there")
	}
}
