package outdir

import (
	"fmt"
	"testing"

	"surprisal/internal/place"
	"surprisal/internal/store"
	"surprisal/internal/testkit/storetest"
)

// TestQuarantineInBucket: what is moved aside in a bucket is listed as that, and
// can be removed.
func TestQuarantineInBucket(t *testing.T) {
	storetest.S3(t)
	out := storetest.URL("quarantine/out")
	const rel = "a/rows-000000000000-000000000009.parquet"
	if _, err := store.PutBytes(t.Context(), place.Join(out, rel), []byte("damaged"), store.Condition{}); err != nil {
		t.Fatal(err)
	}
	list := func() (kinds string) {
		t.Helper()
		if err := List(t.Context(), out, func(e Entry) error {
			kinds += fmt.Sprintf("%s ", e.Kind)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return kinds
	}
	if k := list(); k != "scores " {
		t.Errorf("before: %q", k)
	}
	to, err := Quarantine(t.Context(), out, rel)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := readSmall(t.Context(), to); err != nil || string(b) != "damaged" {
		t.Errorf("%s: %q, %v", to, b, err)
	}
	if k := list(); k != "quarantined " {
		t.Errorf("after: %q", k)
	}
	if err := List(t.Context(), out, func(e Entry) error { return Remove(t.Context(), out, e) }); err != nil {
		t.Fatal(err)
	}
	if k := list(); k != "" {
		t.Errorf("removed: %q", k)
	}
	if h, err := Probe(t.Context(), out); err != nil || h.At != out {
		t.Errorf("%+v, %v", h, err)
	}
	if k := list(); k != "" {
		t.Errorf("the probe left %q", k)
	}
}
