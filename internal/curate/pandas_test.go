package curate

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/testkit/fakescores"
	"surprisal/internal/testkit/pythontest"
)

// TestFilterKeepsWhatPandasKeeps: the ids kept at the 60th percentile by dump are
// those of a line of pandas. TestFilterKeepsWhatNumPyKeeps does the same without it.
func TestFilterKeepsWhatPandasKeeps(t *testing.T) {
	py := pythontest.With(t, "pandas", "pyarrow")
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
