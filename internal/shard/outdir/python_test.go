package outdir

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/testkit/pythontest"
	"surprisal/internal/testkit/shardtest"
)

// TestReadBack reads score files with pyarrow and DuckDB: what counts is what
// other programs see.
func TestReadBack(t *testing.T) {
	python := pythontest.With(t, "pyarrow", "duckdb")
	all := shardtest.PerToken()
	keep := shardtest.TextOptions()
	keep.Keep = []string{"text", "id"}
	none := shardtest.TextOptions()
	none.Keep = []string{}
	plain := shardtest.TextOptions()
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
			in, o := shardtest.Fixtures(t, tc.name)[0], tc.options
			c, err := writeJob(t, shardtest.Job(t, in, t.TempDir(), o, tc.first, tc.last), nil)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(python, filepath.Join(shardtest.Testdata(), "readback.py"), in, c.Path,
				strconv.FormatInt(tc.first, 10), strconv.FormatInt(tc.last, 10), strconv.FormatBool(o.PerToken))
			if b, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, b)
			}
		})
	}
}
