package cpu

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"surprisal/internal/model"
	"surprisal/internal/score"
	"surprisal/internal/testkit/modeltest"
)

// sameBits compares scores bit by bit; a NaN equals any NaN.
func sameBits(t *testing.T, what string, got, want []modeltest.Document) {
	t.Helper()
	for i := range want {
		if len(got[i].NLL) != len(want[i].NLL) {
			t.Fatalf("%s: document %d has %d scores, want %d", what, i, len(got[i].NLL), len(want[i].NLL))
		}
		for j, v := range want[i].NLL {
			g := got[i].NLL[j]
			if math.Float32bits(g) != math.Float32bits(v) && !(g != g && v != v) || got[i].Top1[j] != want[i].Top1[j] {
				t.Fatalf("%s: document %d of %d tokens: token %d is %g, alone %g", what, i, len(want[i].IDs)-1, j, g, v)
			}
		}
	}
}

// poison fills every work buffer with NaN: what a batch reads, it must have written.
func poison(e *Engine) {
	nan := float32(math.NaN())
	all := [][]float32{e.x, e.p, e.q, e.k, e.e}
	for i := range e.workers {
		w := &e.workers[i]
		all = append(all, w.norm, w.wide, w.slice, w.nll)
		for j := range w.top1 {
			w.top1[j], w.target[j] = 255, -7
		}
	}
	for _, s := range all {
		for i := range s {
			s[i] = nan
		}
	}
}

// TestDeterminism: a document's scores are the same bits alone, packed,
// shuffled, split on the grid in any way, and on any number of threads.
func TestDeterminism(t *testing.T) {
	models := awkward()
	for name, c := range map[string]model.Config{
		"width-192": {
			VocabSize: 700, PaddedVocabSize: 704, Layers: 2, Width: 192, Inner: 320, NormEps: 1e-5, BlockSize: 128,
			Heads: 2, VHeads: 2, K: 64, V: 64, ShortConv: true, ConvSize: 4, Kaczmarz: true, KaczmarzEps: 1e-6,
		},
		"width-600": { // more than one block of the products' inner sum
			VocabSize: 300, PaddedVocabSize: 320, Layers: 1, Width: 600, Inner: 530, NormEps: 1e-5, BlockSize: 128,
			Heads: 1, VHeads: 2, K: 48, V: 40, ShortConv: true, ConvSize: 3, Kaczmarz: true, KaczmarzEps: 1e-6,
			NegEigval: true,
		},
	} {
		models[name] = c
	}
	for name, c := range models {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 6))
			lengths := []int{1, 2, 3, 16, 63, 64, 65, 66, 67, 127, 129, 300, 700}
			docs := make([]modeltest.Document, len(lengths))
			for i, n := range lengths {
				docs[i] = randomDoc(r, c.VocabSize, n)
			}
			w := randomWeights(c, 9, false)
			const big = 1024
			e := engineOf(t, w, c, Config{Threads: 2, MaxTokens: big})
			alone := slices.Clone(docs)
			for i := range alone {
				poison(e)
				modeltest.Score(t, e, alone[i:i+1], nil, big)
			}
			for _, v := range alone[len(alone)-1].NLL {
				if math.IsNaN(float64(v)) {
					t.Fatal("a score is NaN: it read what it had not written")
				}
			}
			for _, threads := range []int{1, 2, 3, 7} {
				e := engineOf(t, w, c, Config{Threads: threads, MaxTokens: big})
				for _, budget := range []int{64, 128, 192, 512, big} {
					poison(e)
					modeltest.Score(t, e, docs, nil, budget)
					sameBits(t, fmt.Sprintf("%d threads, batches of %d", threads, budget), docs, alone)
				}
			}
			for round := range 4 {
				order := r.Perm(len(docs))
				shuffled, want := make([]modeltest.Document, len(docs)), make([]modeltest.Document, len(docs))
				for i, from := range order {
					shuffled[i], want[i] = docs[from], alone[from]
				}
				poison(e)
				modeltest.Score(t, e, shuffled, nil, big)
				sameBits(t, fmt.Sprintf("shuffled %d", round), shuffled, want)
			}
		})
	}
}

// TestSplitGolden carries the long documents of a golden over batches of every
// multiple of the grid.
func TestSplitGolden(t *testing.T) {
	g := modeltest.ReadGolden(t, filepath.Join(goldens, "kla_128"))
	e := open(t, filepath.Join(goldens, "kla_128"), Config{MaxTokens: 9024})
	docs := g.Documents()
	docs = docs[len(docs)-3:] // 1000, 4097, 9001 ids
	want := slices.Clone(docs)
	modeltest.Score(t, e, want, nil, 9024)
	for _, budget := range []int{64, 320, 4096} {
		poison(e)
		modeltest.Score(t, e, docs, nil, budget)
		sameBits(t, fmt.Sprintf("batches of %d", budget), docs, want)
	}
}

// TestNaNStaysHome: a document whose scores are not finite spoils no other, in
// its batch or after.
func TestNaNStaysHome(t *testing.T) {
	for name, c := range awkward() {
		t.Run(name, func(t *testing.T) {
			w := randomWeights(c, 4, false)
			bad := int32(c.VocabSize - 1)
			for i := range c.Width {
				w["transformer.wte.weight"][int(bad)*c.Width+i] = float32(math.NaN())
			}
			e := engineOf(t, w, c, Config{MaxTokens: 512})
			r := rand.New(rand.NewPCG(8, 8))
			var docs []modeltest.Document
			for _, n := range []int{1, 20, 64, 90, 33} {
				docs = append(docs, randomDoc(r, int(bad), n))
			}
			want := slices.Clone(docs)
			for i := range want {
				modeltest.Score(t, e, want[i:i+1], nil, 512)
			}
			var mixed []modeltest.Document
			for i, d := range docs {
				ill := randomDoc(r, int(bad), 10+i)
				ill.IDs[3] = bad
				mixed = append(mixed, ill, d)
			}
			for range 2 {
				modeltest.Score(t, e, mixed, nil, 512)
				for i, d := range mixed {
					if i%2 == 0 {
						if !math.IsNaN(float64(d.NLL[3])) || math.IsNaN(float64(d.NLL[2])) ||
							slices.Contains(d.Top1[3:], true) {
							t.Fatalf("document %d: scores %v, want NaN from 3 on", i, d.NLL)
						}
					} else {
						sameBits(t, "beside a NaN", mixed[i:i+1], want[i/2:i/2+1])
					}
				}
			}
		})
	}
}

// TestTop1Ties: the lowest index wins.
func TestTop1Ties(t *testing.T) {
	c := awkward()["vocabulary"]
	w := randomWeights(c, 4, false)
	clear(w["lm_head.weight"]) // all logits are 0
	e := engineOf(t, w, c, Config{})
	var b score.Batch
	b.Append([]int32{5, 5, 5, 5}, []int32{0, 1, int32(c.VocabSize - 1), score.NoTarget}, nil)
	b.Alloc()
	b.NLL[3], b.Top1[3] = 9, true
	if err := e.Forward(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	if want := []bool{true, false, false, false}; !slices.Equal(b.Top1, want) {
		t.Errorf("top-1 is %v, want %v", b.Top1, want)
	}
	even := math.Log(float64(c.VocabSize))
	for i, want := range []float64{even, even, even, 0} {
		if math.Abs(float64(b.NLL[i])-want) > 1e-6 {
			t.Errorf("nll %d is %g, want %g", i, b.NLL[i], want)
		}
	}
}
