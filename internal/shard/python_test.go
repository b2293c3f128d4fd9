package shard

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"surprisal/internal/score"
)

// TestReadBack reads score files with pyarrow and DuckDB: what counts is what
// other programs see.
func TestReadBack(t *testing.T) {
	python := pythonWithArrow(t)
	all := perTokenAll()
	keep := textOptions()
	keep.Keep = []string{"text", "id"}
	none := textOptions()
	none.Keep = []string{}
	plain := textOptions()
	for _, tc := range []struct {
		name        string
		options     score.Options
		first, last int64
	}{
		{"kinds", all, 0, 249},
		{"kinds", plain, 30, 131},
		{"kinds-bare", all, 99, 249},
		{"kinds-split", all, 7, 233},
		{"int96", all, 0, 249},
		{"large-string", keep, 1, 200},
		{"binary", keep, 1, 200},
		{"required", keep, 0, 0},
		{"nulls", all, 0, 249},
		{"tiny-groups", all, 4, 240},
		{"enc-dict-snappy-v2", none, 0, 249},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			in, o := fixtures(t, tc.name)[0], tc.options
			c, err := writeJob(t, testJob(t, in, t.TempDir(), o, tc.first, tc.last), nil)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(python, filepath.Join("testdata", "readback.py"), in, c.Path,
				strconv.FormatInt(tc.first, 10), strconv.FormatInt(tc.last, 10), strconv.FormatBool(o.PerToken))
			if b, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, b)
			}
		})
	}
}

// pythonWithArrow gives a Python that has pyarrow and duckdb: the machine's
// own, or one in .build at the module's root, made once.
func pythonWithArrow(t *testing.T) string {
	t.Helper()
	python, err := findPython()
	if err != nil {
		const require = "SURPRISAL_REQUIRE_PYTHON"
		if os.Getenv(require) == "1" {
			t.Fatalf("%s=1, but there is no Python with pyarrow and duckdb: %v", require, err)
		}
		t.Skipf("NOT RUN: there is no Python with pyarrow and duckdb, and none could be made: %v", err)
	}
	return python
}

var findPython = sync.OnceValues(func() (string, error) {
	has := func(python string) error { return exec.Command(python, "-c", "import pyarrow, duckdb").Run() }
	if has("python3") == nil {
		return "python3", nil
	}
	env := filepath.Join("..", "..", ".build", "python")
	python := filepath.Join(env, "bin", "python3")
	if has(python) == nil {
		return python, nil
	}
	if b, err := exec.Command("python3", "-m", "venv", env).CombinedOutput(); err != nil {
		return "", &commandError{string(b), err}
	}
	if b, err := exec.Command(python, "-m", "pip", "install", "--quiet", "pyarrow", "duckdb", "pytz").CombinedOutput(); err != nil {
		return "", &commandError{string(b), err}
	}
	return python, has(python)
})

type commandError struct {
	output string
	err    error
}

func (e *commandError) Error() string { return e.err.Error() + ": " + e.output }
