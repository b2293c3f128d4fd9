package cpu

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"surprisal/internal/model"
	"surprisal/internal/score"
)

const goldens = "../../../testdata/goldens"

type golden struct {
	Docs []goldenDoc
}

type goldenDoc struct {
	IDs    []int32   `json:"ids"`
	NLL    []float64 `json:"nll"`
	Top1   []int     `json:"top1"` // 0 or 1
	Sum    float64   `json:"sum_nll"`
	SumOne float64   `json:"sum_nll_query_scale_1"`
}

func readGolden(t testing.TB, name string) golden {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(goldens, name, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Docs) == 0 {
		t.Fatalf("%s has no documents", name)
	}
	return g
}

// open gives an engine for a checkpoint folder, closed with the test.
func open(t testing.TB, dir string, cfg Config) *Engine {
	t.Helper()
	mc, err := model.LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	ckpt, err := model.Open(dir, mc)
	if err != nil {
		t.Fatal(err)
	}
	defer ckpt.Close()
	e, err := New(ckpt, mc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// doc is a document's tokens and what came out for them.
type doc struct {
	ids  []int32 // ids[1:] are targets
	nll  []float32
	top1 []bool
}

func forward(t testing.TB, e *Engine, b *score.Batch) {
	t.Helper()
	b.Alloc()
	if err := e.Forward(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

// scoreDocs scores documents in order, packed into batches of at most budget
// tokens; a document is split, on the grid, wherever a batch is full.
func scoreDocs(t testing.TB, e *Engine, docs []doc, budget int) {
	t.Helper()
	type part struct{ doc, first, n, at int }
	var b score.Batch
	var parts []part
	flush := func() {
		forward(t, e, &b)
		for _, p := range parts {
			d := &docs[p.doc]
			d.nll = append(d.nll, b.NLL[p.at:p.at+p.n]...)
			d.top1 = append(d.top1, b.Top1[p.at:p.at+p.n]...)
		}
		b.Reset()
		parts = parts[:0]
	}
	for i := range docs {
		docs[i].nll, docs[i].top1 = nil, nil
		in, targets := docs[i].ids[:len(docs[i].ids)-1], docs[i].ids[1:]
		var st score.State
		for at := 0; at < len(in); {
			room := budget - len(b.IDs)
			n := len(in) - at
			if n > room {
				n = room / score.SplitMultiple * score.SplitMultiple
				if n == 0 {
					flush()
					continue
				}
				if st == nil {
					st = e.NewState()
				}
			}
			parts = append(parts, part{i, at, n, len(b.IDs)})
			b.Append(in[at:at+n], targets[at:at+n], st)
			at += n
			if at < len(in) {
				flush()
			}
		}
		if st != nil {
			flush() // before the state goes
			st.Release()
		}
	}
	flush()
}

func docsOf(g golden) []doc {
	docs := make([]doc, len(g.Docs))
	for i, d := range g.Docs {
		docs[i].ids = d.IDs
	}
	return docs
}

func sum(nll []float32) (s float64) {
	for _, v := range nll {
		s += float64(v)
	}
	return s
}

// TestGoldens holds per-token scores against the float64 reference.
func TestGoldens(t *testing.T) {
	for _, name := range []string{
		"kla", "plain", "gva", "expand_v", "neg_eigval", "no_conv", "kla_l2norm", "kla_128", "plain_128", "gva_128", "strong_decay_128",
	} {
		t.Run(name, func(t *testing.T) {
			g := readGolden(t, name)
			e := open(t, filepath.Join(goldens, name), Config{})
			docs := docsOf(g)
			scoreDocs(t, e, docs, e.Info().MaxTokens)
			worst, worstMean, flips, n := 0.0, 0.0, 0, 0
			for i, d := range docs {
				want := g.Docs[i]
				if len(d.nll) != len(want.NLL) {
					t.Fatalf("document %d: %d scores, want %d", i, len(d.nll), len(want.NLL))
				}
				for j, v := range d.nll {
					worst = math.Max(worst, math.Abs(float64(v)-want.NLL[j]))
					if math.IsNaN(float64(v)) {
						t.Fatalf("document %d: token %d is NaN", i, j)
					}
					if d.top1[j] != (want.Top1[j] == 1) {
						flips++
					}
				}
				n += len(d.nll)
				worstMean = math.Max(worstMean, math.Abs(sum(d.nll)-want.Sum)/float64(len(d.nll)))
			}
			t.Logf("%d tokens: worst token %.2e nats, worst mean %.2e, %d top-1 differ", n, worst, worstMean, flips)
			if worst > 2e-4 || worstMean > 5e-5 {
				t.Errorf("worst token %.2e (limit 2e-4), worst mean %.2e (limit 5e-5)", worst, worstMean)
			}
			if flips > n/2000 {
				t.Errorf("%d of %d top-1 flags differ", flips, n) // ties to rounding only
			}

			one := open(t, filepath.Join(goldens, name), Config{QueryScale: 1})
			scoreDocs(t, one, docs, one.Info().MaxTokens)
			worstMean = 0
			for i, d := range docs {
				worstMean = math.Max(worstMean, math.Abs(sum(d.nll)-g.Docs[i].SumOne)/float64(len(d.nll)))
			}
			t.Logf("query scale 1: worst mean %.2e", worstMean)
			if !(worstMean <= 5e-5) {
				t.Errorf("query scale 1: worst mean %.2e (limit 5e-5)", worstMean)
			}
		})
	}
}
