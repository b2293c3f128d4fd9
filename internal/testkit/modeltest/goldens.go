// Package modeltest is what the engines' tests share: the goldens of the float64
// reference, and documents scored through packed batches.
package modeltest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"surprisal/internal/model"
)

// Golden is what the float64 reference gives for a small checkpoint.
type Golden struct {
	Docs []GoldenDocument
}

// GoldenDocument has one value a target: IDs[1:] are the targets.
type GoldenDocument struct {
	IDs    []int32   `json:"ids"`
	NLL    []float64 `json:"nll"`  // nats
	Top1   []int     `json:"top1"` // 0 or 1
	Sum    float64   `json:"sum_nll"`
	SumOne float64   `json:"sum_nll_query_scale_1"`
}

// ReadGolden reads the expected.json of a golden's folder.
func ReadGolden(t testing.TB, dir string) Golden {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g Golden
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Docs) == 0 {
		t.Fatalf("%s has no documents", dir)
	}
	return g
}

// Documents gives the golden's documents, to be scored.
func (g Golden) Documents() []Document {
	docs := make([]Document, len(g.Docs))
	for i, d := range g.Docs {
		docs[i].IDs = d.IDs
	}
	return docs
}

// Open opens a checkpoint folder; the caller closes it.
func Open(t testing.TB, dir string) (*model.Checkpoint, model.Config) {
	t.Helper()
	c, err := model.LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	ckpt, err := model.Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	return ckpt, c
}
