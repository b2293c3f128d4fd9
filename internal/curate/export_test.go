package curate

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/testkit/fakescores"
)

// TestExports: pyarrow finds every score where it belongs, in each layout.
func TestExports(t *testing.T) {
	py := python(t)
	for _, perToken := range []bool{false, true} {
		c := scored(t, demo, fakescores.Options{PerToken: perToken})
		dir := t.TempDir()
		args := []string{"testdata/exported.py", c.Dir, demo}
		for _, as := range []string{"merged", "sidecar", "dolma"} {
			to := filepath.Join(dir, as)
			e, err := c.Export(t.Context(), ExportOptions{As: as, To: to})
			if err != nil {
				t.Fatal(err)
			}
			if e.Rows != c.Totals.Documents || e.Files != 2 {
				t.Errorf("%s: %+v", as, e)
			}
			if _, err := c.Export(t.Context(), ExportOptions{As: as, To: to}); err != nil {
				t.Errorf("%s again: %v", as, err)
			}
			args = append(args, to)
		}
		if out, err := exec.Command(py, args...).CombinedOutput(); err != nil {
			t.Errorf("%s", out)
		}
	}
}

// TestExportGoesOn: a file that is missing is written again, with the same bytes.
func TestExportGoesOn(t *testing.T) {
	c := scored(t, demo, fakescores.Options{})
	for _, as := range []string{"merged", "sidecar", "dolma"} {
		o := ExportOptions{As: as, To: filepath.Join(t.TempDir(), as)}
		if _, err := c.Export(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(o.To, "000_*"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		before, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(files[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Export(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if after, err := os.ReadFile(files[0]); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: other bytes (%v)", as, err)
		}
	}
	if _, err := c.Export(t.Context(), ExportOptions{As: "zip", To: t.TempDir()}); !isUsage(err) {
		t.Errorf("--as zip: %v", err)
	}
}

func TestExportPartial(t *testing.T) {
	skip := func(j score.Job) bool { return strings.HasPrefix(j.Input.Rel, "000") }
	c := scored(t, demo, fakescores.Options{Skip: skip})
	for _, as := range []string{"merged", "sidecar"} {
		o := ExportOptions{As: as, To: filepath.Join(t.TempDir(), as)}
		if e, err := c.Export(t.Context(), o); err != nil || e.Rows != c.Totals.Documents {
			t.Errorf("%s: %+v %v", as, e, err)
		}
	}
	if _, err := c.Export(t.Context(), ExportOptions{As: "dolma", To: t.TempDir()}); !isUsage(err) ||
		!strings.Contains(err.Error(), "line up") {
		t.Errorf("dolma: %v", err)
	}
}
