//go:build cuda

package gpu

import (
	"compress/gzip"
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"

	"surprisal/internal/model/tokenizer"
	"surprisal/internal/testkit/modeltest"
)

// demoScore is what float64 gives a document of the demo.
type demoScore struct {
	Tokens int     `json:"n_tokens"`
	Bytes  int     `json:"n_bytes"`
	SumNLL float64 `json:"sum_nll"`
}

// readDemo gives the demo corpus as tokens, and its scores.
func readDemo(t *testing.T, model string) ([]modeltest.Document, []demoScore) {
	t.Helper()
	read := func(path string, packed bool, v any) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		d := json.NewDecoder(f)
		if packed {
			z, err := gzip.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			d = json.NewDecoder(z)
		}
		if err := d.Decode(v); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	var texts []string
	var want []demoScore
	read("../model/tokenizer/testdata/demo_texts.json.gz", true, &texts)
	read("../../examples/demo/expected.json", false, &want)
	tok, err := tokenizer.Open(model+"/tokenizer.json", tokenizer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	docs := make([]modeltest.Document, len(texts))
	for i, text := range texts {
		ids, err := tok.Encode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if bos, ok := tok.BOS(); ok {
			ids = slices.Insert(ids, 0, bos)
		}
		if len(text) != want[i].Bytes || len(ids)-1 != want[i].Tokens {
			t.Fatalf("document %d: %d bytes, %d tokens, want %d and %d", i, len(text), len(ids)-1, want[i].Bytes,
				want[i].Tokens)
		}
		docs[i].IDs = ids
	}
	return docs, want
}

// TestDemo: the demo corpus has the same scores to the last bit with every budget and
// in any order, and document means nearer to float64's than PyTorch's in bf16 on an
// H200.
func TestDemo(t *testing.T) {
	needGPU(t)
	const model = "../../examples/demo/model"
	docs, want := readDemo(t, model)
	budgets := []int{2048, 8192, 32768}
	if emulated(t) && os.Getenv("SURPRISAL_EMULATE_ALL") == "" {
		most := 8
		if testing.Short() {
			most = 3
		}
		n := 0
		for i := range docs {
			if len(docs[i].IDs) <= 300 && n < most {
				docs[n], want[n] = docs[i], want[i]
				n++
			}
		}
		docs, want, budgets = docs[:n], want[:n], []int{192, 512}
	}
	var first []modeltest.Document
	for _, budget := range budgets {
		e := open(t, model, Config{MaxTokens: budget}, options{half: true, poison: true})
		first = sameInOrders(t, e, docs, first, budget)
	}
	square, worst := 0.0, 0.0
	for i, d := range first {
		off := math.Abs(modeltest.Sum(d.NLL)-want[i].SumNLL) / float64(want[i].Tokens)
		square, worst = square+off*off, math.Max(worst, off)
	}
	rms := math.Sqrt(square / float64(len(first)))
	t.Logf("%d documents: means off by %.5f nats rms, %.5f at worst", len(first), rms, worst)
	if !(rms <= 0.0015) || !(worst <= 0.0056) {
		t.Errorf("means off by %.5f nats rms (limit 0.0015), %.5f at worst (limit 0.0056)", rms, worst)
	}
}
