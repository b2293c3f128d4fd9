//go:build cuda

package gpu

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"surprisal/internal/model"
	"surprisal/internal/model/cpu"
	"surprisal/internal/score"
)

const goldens = "../../testdata/goldens"

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

func (g golden) docs() []doc {
	docs := make([]doc, len(g.Docs))
	for i, d := range g.Docs {
		docs[i].ids = d.IDs
	}
	return docs
}

// needGPU skips loudly where there is none.
func needGPU(t testing.TB) {
	t.Helper()
	if _, err := Devices(); err != nil {
		t.Skipf("NO GPU: %v", err)
	}
}

// emulated tells whether the GPU is the stand-in of emulator/, which is slow: tests
// take a part of their inputs then.
func emulated(t testing.TB) bool {
	t.Helper()
	d, err := Devices()
	return err == nil && d[0].Name == "emulated GPU"
}

// open gives an engine for a checkpoint folder, closed with the test.
func open(t testing.TB, dir string, cfg Config, opt options) *Engine {
	t.Helper()
	needGPU(t)
	mc, err := model.LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	ckpt, err := model.Open(dir, mc)
	if err != nil {
		t.Fatal(err)
	}
	defer ckpt.Close()
	e, err := newEngine(fromCheckpoint{ckpt}, mc, cfg, opt)
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

// engine is what scoreDocs scores with.
type engine interface {
	Forward(context.Context, *score.Batch) error
	NewState() (score.State, error)
}

type onCPU struct{ *cpu.Engine }

func (e onCPU) NewState() (score.State, error) { return e.Engine.NewState(), nil }

func forward(t testing.TB, e engine, b *score.Batch) {
	t.Helper()
	b.Alloc()
	for i := range b.NLL {
		b.NLL[i] = float32(math.NaN())
	}
	if err := e.Forward(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

// scoreDocs scores documents in the order given, packed into batches of at most
// budget tokens; a document is split, on the grid, wherever a batch is full.
func scoreDocs(t testing.TB, e engine, docs []doc, order []int, budget int) {
	t.Helper()
	type part struct{ doc, n, at int }
	var b score.Batch
	var parts []part
	flush := func() {
		if len(parts) == 0 {
			return
		}
		forward(t, e, &b)
		for _, p := range parts {
			d := &docs[p.doc]
			d.nll = append(d.nll, b.NLL[p.at:p.at+p.n]...)
			d.top1 = append(d.top1, b.Top1[p.at:p.at+p.n]...)
		}
		b.Reset()
		parts = parts[:0]
	}
	if order == nil {
		for i := range docs {
			order = append(order, i)
		}
	}
	for _, i := range order {
		docs[i].nll, docs[i].top1 = nil, nil
		in, targets := docs[i].ids[:len(docs[i].ids)-1], docs[i].ids[1:]
		var st score.State
		for at := 0; at < len(in); {
			room, n := budget-len(b.IDs), len(in)-at
			if n > room {
				if n = room / score.SplitMultiple * score.SplitMultiple; n == 0 {
					flush()
					continue
				}
				if st == nil {
					var err error
					if st, err = e.NewState(); err != nil {
						t.Fatal(err)
					}
				}
			}
			parts = append(parts, part{i, n, len(b.IDs)})
			b.Append(in[at:at+n], targets[at:at+n], st)
			if at += n; at < len(in) {
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

func sum(nll []float32) (s float64) {
	for _, v := range nll {
		s += float64(v)
	}
	return s
}

// errors of a golden's documents against float64.
type errorsOf struct {
	rms, worst, worstMean, worstMeanLong float64
	tokens, flips, notFinite             int
}

func compare(t testing.TB, g golden, docs []doc) (r errorsOf) {
	t.Helper()
	square := 0.0
	for i, d := range docs {
		want := g.Docs[i]
		if len(d.nll) != len(want.NLL) {
			t.Fatalf("document %d: %d scores, want %d", i, len(d.nll), len(want.NLL))
		}
		for j, v := range d.nll {
			e := float64(v) - want.NLL[j]
			if math.IsNaN(e) || math.IsInf(e, 0) {
				r.notFinite++
				continue
			}
			square += e * e
			r.worst = math.Max(r.worst, math.Abs(e))
			if d.top1[j] != (want.Top1[j] == 1) {
				r.flips++
			}
		}
		r.tokens += len(d.nll)
		mean := math.Abs(sum(d.nll)-want.Sum) / float64(len(d.nll))
		if len(d.nll) >= 60 {
			r.worstMean = math.Max(r.worstMean, mean)
		}
		if len(d.nll) >= 990 {
			r.worstMeanLong = math.Max(r.worstMeanLong, mean)
		}
	}
	r.rms = math.Sqrt(square / float64(r.tokens))
	return r
}

// TestGoldens holds per-token scores against the float64 reference. The limits
// are the errors of PyTorch in bf16 with flash-linear-attention on an H200.
func TestGoldens(t *testing.T) {
	if testing.Short() && emulated(t) {
		t.Skip("the kernels on the CPU take minutes")
	}
	for name, limit := range map[string]float64{"kla_128": 0.0201, "plain_128": 0.0218, "gva_128": 0.0221, "strong_decay_128": 0.0315} {
		for _, opt := range []struct {
			name string
			options
		}{
			{"fp16 operands", options{half: true, poison: true}},
			{"bf16 operands", options{poison: true}},
			{"token by token", options{half: true, poison: true, simple: true}},
		} {
			t.Run(name+"/"+opt.name, func(t *testing.T) {
				g := readGolden(t, name)
				budget := 16384
				if emulated(t) {
					budget = 1024 // the choice of algorithms runs whole batches
				}
				e := open(t, filepath.Join(goldens, name), Config{MaxTokens: budget}, opt.options)
				if emulated(t) && os.Getenv("SURPRISAL_EMULATE_ALL") == "" {
					g.Docs = slices.DeleteFunc(g.Docs, func(d goldenDoc) bool { return len(d.NLL) > 300 })
				}
				docs := g.docs()
				scoreDocs(t, e, docs, nil, e.Info().MaxTokens)
				r := compare(t, g, docs)
				t.Logf("%d tokens: rms %.4f (limit %.4f), worst %.3f, document means off by at most %.5f (60 tokens and more), %.5f (990 and more), %d top-1 differ",
					r.tokens, r.rms, limit, r.worst, r.worstMean, r.worstMeanLong, r.flips)
				if !(r.rms <= limit) || r.notFinite > 0 || !(r.worstMean <= 0.008) || !(r.worstMeanLong <= 0.0006) {
					t.Errorf("rms %.4f (limit %.4f), %d not finite, document means %.5f (limit 0.008), %.5f (limit 0.0006)", r.rms, limit, r.notFinite, r.worstMean, r.worstMeanLong)
				}
			})
		}
	}
}
