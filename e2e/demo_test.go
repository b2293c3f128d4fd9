package e2e

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"surprisal/internal/score"
)

// TestDemoCorpus scores the demo corpus in small jobs and holds each row against
// the float64 reference; the same command again scores nothing.
func TestDemoCorpus(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	args := []string{"run", "--json", "--model", demoModel, "--out", out, "--job-tokens", "30000", "--workers", "2", demoCorpus}
	sum := parseSummary(t, dispatcher(t, args...).want(t, 0))
	var expected []struct {
		File    string
		NTokens int64   `json:"n_tokens"`
		NBytes  int64   `json:"n_bytes"`
		SumNLL  float64 `json:"sum_nll"`
		Top1    int64
	}
	readJSON(t, "../examples/demo/expected.json", &expected)
	rows := scores(t, out)
	if len(rows) != len(expected) || sum.Documents != int64(len(rows)) || !sum.Complete {
		t.Fatalf("%d rows of %d, summary %+v", len(rows), len(expected), sum)
	}
	worst := 0.0
	for i, r := range rows {
		e := expected[i]
		if r.file+".parquet" != e.File || r.Tokens != e.NTokens || r.Bytes != e.NBytes || r.Error != "" {
			t.Fatalf("row %d: %+v, want %+v", i, r, e)
		}
		off := math.Abs(r.SumNLL-e.SumNLL) / float64(e.NTokens)
		worst = max(worst, off)
		if off > 1e-4 || math.Abs(float64(r.Top1-e.Top1)) > .002*float64(e.NTokens) {
			t.Errorf("row %d: %+v, want %+v", i, r, e)
		}
	}
	t.Logf("worst error of a document's mean: %.1e nats a token", worst)
	if _, err := os.Stat(filepath.Join(out, score.SuccessName)); err != nil {
		t.Error(err)
	}
	before := tree(t, out)
	again := parseSummary(t, dispatcher(t, args...).want(t, 0))
	if again.ScoredTokens != 0 || again.Tokens != sum.Tokens || again.Run != sum.Run {
		t.Errorf("the same command again: %+v", again)
	}
	if after := tree(t, out); after != before {
		t.Errorf("the same command again changed OUT from\n%s\nto\n%s", before, after)
	}
}

// TestScoresDoNotDependOnHow scores the corpus whole and cut in other ways.
func TestScoresDoNotDependOnHow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	base := scoreDemo(t, filepath.Join(dir, "a"))
	sameScores(t, base, scoreDemo(t, filepath.Join(dir, "b"), "--job-tokens", "5000", "--workers", "2", "--threads", "1", "--batch-tokens", "192"))
}

func scoreDemo(t *testing.T, out string, flags ...string) []scored {
	t.Helper()
	args := append([]string{"run", "--model", demoModel, "--out", out}, flags...)
	dispatcher(t, append(args, filepath.Join(demoCorpus, "000_00000.parquet"))...).want(t, 0)
	return scores(t, out)
}

// tree lists OUT's files with their sizes and times.
func tree(t *testing.T, dir string) string {
	t.Helper()
	list := ""
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(path) == score.SuccessName {
			return err
		}
		st, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary that has its name by now
		}
		if err == nil {
			list += path + " " + st.ModTime().String() + "\n"
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
