package shard

import (
	"bytes"
	"encoding/base64"
	"slices"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/shard/pq"
	"surprisal/internal/testkit/shardtest"
)

// TestHostileArrowSchema flips every byte of an Arrow schema.
func TestHostileArrowSchema(t *testing.T) {
	b := shardtest.Read(t, shardtest.Fixtures(t, "kinds")[0])
	foot, err := pq.ReadFooter(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	cols, err := newColumns(foot, shardtest.PerToken())
	if err != nil {
		t.Fatal(err)
	}
	good, err := base64.StdEncoding.DecodeString(cols.arrow)
	if err != nil || arrowSchema(cols, score.Options{PerToken: true}) == "" {
		t.Fatalf("no schema to begin with (%v)", err)
	}
	for i := range good {
		for _, x := range []byte{0x01, 0x80, 0xff} {
			b := slices.Clone(good)
			b[i] ^= x
			cols.arrow = base64.StdEncoding.EncodeToString(b)
			arrowSchema(cols, score.Options{PerToken: true})
		}
		cols.arrow = base64.StdEncoding.EncodeToString(good[:i])
		if arrowSchema(cols, score.Options{PerToken: true}) != "" {
			t.Fatalf("%d bytes of %d were enough", i, len(good))
		}
	}
}
