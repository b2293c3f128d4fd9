package outdir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/shard"
	"surprisal/internal/shard/pq"
	"surprisal/internal/testkit/pythontest"
	"surprisal/internal/testkit/shardtest"
)

// TestCopyWithScores adds score columns from two files and a label.
func TestCopyWithScores(t *testing.T) {
	python := pythontest.With(t, "pyarrow", "duckdb")
	for _, name := range []string{"kinds", "tiny-groups", "nulls", "required"} {
		for _, perToken := range []bool{false, true} {
			t.Run(fmt.Sprint(name, perToken), func(t *testing.T) {
				t.Parallel()
				ctx := context.Background()
				path, o := shardtest.Fixtures(t, name)[0], shardtest.TextOptions()
				o.Keep, o.PerToken = []string{}, perToken
				whole, err := writeJob(t, shardtest.Job(t, path, t.TempDir(), o, 0, shardtest.Rows-1), nil)
				if err != nil {
					t.Fatal(err)
				}
				var ranges []pq.Range
				for _, cut := range [][2]int64{{0, 99}, {100, shardtest.Rows - 1}} {
					c, err := writeJob(t, shardtest.Job(t, path, t.TempDir(), o, cut[0], cut[1]), nil)
					if err != nil {
						t.Fatal(err)
					}
					s, err := shard.OpenScores(ctx, c.Path)
					if err != nil {
						t.Fatal(err)
					}
					defer s.Close()
					ranges = append(ranges, pq.Range{Table: s, First: cut[0], Last: cut[1]})
				}
				in, err := shard.OpenInput(ctx, shardtest.Input(t, path))
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				d, err := OpenDest(t.Context(), t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				rows, list := &pq.Bitmap{}, filepath.Join(d.out.Path(""), ".rows")
				var lines strings.Builder
				for r := range in.Rows() {
					if shardtest.Selections["mixed"](r) {
						rows.Set(r)
						fmt.Fprintln(&lines, r)
					}
				}
				if err := os.WriteFile(list, []byte(lines.String()), 0o600); err != nil {
					t.Fatal(err)
				}
				label := func(r int64) string {
					if r%2 == 1 {
						return "odd"
					}
					return ""
				}
				c := pq.Copy{In: in, Rows: rows, Label: "bucket", Value: label, Slots: make(chan struct{}, 2)}
				shard.AddScores(&c, ranges)
				if err := d.CopyRows(ctx, "sub/x.parquet", c); err != nil {
					t.Fatal(err)
				}
				b, err := exec.Command(python, filepath.Join(shardtest.Testdata(), "copyback.py"), path,
					d.out.Path("sub/x.parquet"), list, "--scores", whole.Path).CombinedOutput()
				if err != nil {
					t.Errorf("%s", b)
				}
				c.Beside = ranges[:1]
				if err := d.CopyRows(ctx, "y.parquet", c); err == nil || !strings.Contains(err.Error(),
					"has no score") {
					t.Errorf("rows without scores: %v", err)
				}
				if _, err := d.ReadFile(ctx, "y.parquet"); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a failed copy left a file: %v", err)
				}
			})
		}
	}
}
