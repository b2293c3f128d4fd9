package e2e

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"surprisal/internal/score"
)

// demo is one run of the demo corpus, which several tests read.
var demo struct {
	sync.Mutex
	out string
	sum summary
}

func demoArgs(out string) []string {
	return []string{
		"run", "--json", "--model", demoModel, "--out", out, "--job-tokens", "30000", "--workers", "2", demoCorpus,
	}
}

// demoOut is the output folder of a run of the demo corpus in small jobs, for tests
// that leave its score files as they are.
func demoOut(t *testing.T) (string, summary) {
	t.Helper()
	demo.Lock()
	defer demo.Unlock()
	if demo.out == "" {
		out := filepath.Join(bin, "demo-out")
		demo.sum = parseSummary(t, dispatcher(t, demoArgs(out)...).want(t, 0))
		demo.out = out
	}
	return demo.out, demo.sum
}

// demoScores are the scores of one of the demo corpus's files.
func demoScores(t *testing.T, file string) []scored {
	t.Helper()
	out, _ := demoOut(t)
	return slices.DeleteFunc(scores(t, out), func(s scored) bool { return s.file+".parquet" != file })
}

// TestDemoCorpus scores the demo corpus in small jobs and holds each row against
// the float64 reference; the same command again scores nothing.
func TestDemoCorpus(t *testing.T) {
	t.Parallel()
	out, sum := demoOut(t)
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
	again := parseSummary(t, dispatcher(t, demoArgs(out)...).want(t, 0))
	if again.ScoredTokens != 0 || again.Tokens != sum.Tokens || again.Run != sum.Run {
		t.Errorf("the same command again: %+v", again)
	}
	if after := tree(t, out); after != before {
		t.Errorf("the same command again changed OUT from\n%s\nto\n%s", before, after)
	}
}

// TestScoresDoNotDependOnHow scores a file of the corpus alone, cut in other ways.
func TestScoresDoNotDependOnHow(t *testing.T) {
	t.Parallel()
	const file = "000_00000.parquet"
	out := filepath.Join(t.TempDir(), "out")
	dispatcher(t, "run", "--model", demoModel, "--out", out, "--job-tokens", "5000", "--workers", "2", "--threads", "1",
		"--batch-tokens", "192", filepath.Join(demoCorpus, file)).want(t, 0)
	sameScores(t, demoScores(t, file), scores(t, out))
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
