package curate

import (
	"os/exec"
	"path/filepath"
	"testing"

	"surprisal/internal/testkit/fakescores"
)

// TestBuckets: DuckDB finds each row in the bucket of its percentiles, once.
func TestBuckets(t *testing.T) {
	py := python(t)
	c := scored(t, demo, fakescores.Options{})
	column, folders := filepath.Join(t.TempDir(), "column"), filepath.Join(t.TempDir(), "folders")
	a, err := c.Bucket(t.Context(), BucketOptions{By: []string{"dump"}, As: "column", To: column})
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Bucket(t.Context(), BucketOptions{By: []string{"dump"}, As: "folders", To: folders})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Buckets) != 4 || len(b.Buckets) != 4 {
		t.Fatalf("buckets %+v and %+v", a.Buckets, b.Buckets)
	}
	for i := range a.Buckets {
		if a.Buckets[i].Rows != b.Buckets[i].Rows || a.Buckets[i].Rows == 0 {
			t.Errorf("%s: %d rows and %d", a.Buckets[i].Name(), a.Buckets[i].Rows, b.Buckets[i].Rows)
		}
	}
	if out, err := exec.Command(py, "testdata/bucketed.py", c.Dir, demo, column, folders).CombinedOutput(); err != nil {
		t.Errorf("%s", out)
	}
	if _, err := c.Bucket(t.Context(), BucketOptions{As: "piles", To: t.TempDir()}); !isUsage(err) {
		t.Errorf("--as piles: %v", err)
	}
}
