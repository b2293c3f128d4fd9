package sift

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/sift/fakescores"
)

// TestFilterKeepsWhatPandasKeeps: the ids kept at the 60th percentile by dump are
// those of a line of pandas. TestFilterKeepsWhatNumPyKeeps does the same without it.
func TestFilterKeepsWhatPandasKeeps(t *testing.T) {
	py := ""
	for _, p := range []string{os.Getenv("SURPRISAL_TEST_PYTHON"), "python3"} {
		if py == "" && p != "" && exec.Command(p, "-c", "import pandas, pyarrow").Run() == nil {
			py = p
		}
	}
	if py == "" {
		t.Skip("SKIPPED: needs python3 with pandas and pyarrow (or SURPRISAL_TEST_PYTHON); NumPy's percentiles are compared elsewhere")
	}
	c := scored(t, demo, fakescores.Options{})
	o := FilterOptions{Where: "perplexity < p60", By: []string{"dump"}, To: filepath.Join(t.TempDir(), "kept")}
	r, err := c.Filter(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := exec.Command(py, "testdata/pandas_kept.py", c.Dir, demo, o.To).CombinedOutput()
	if got := strings.TrimSpace(string(b)); err != nil || got != fmt.Sprint(r.Total.Kept) {
		t.Errorf("kept %d, pandas %s (%v)", r.Total.Kept, got, err)
	}
}
