//go:build cuda

package gpu

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"surprisal/internal/testkit/modeltest"
)

const goldens = "../../testdata/goldens"

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
	if emulated(t) && testing.Short() && !strings.HasPrefix(t.Name(), "TestBits") {
		opt.untuned = true // to choose algorithms is to run whole batches
	}
	ckpt, mc := modeltest.Open(t, dir)
	defer ckpt.Close()
	e, err := newEngine(ckpt, mc, cfg, opt)
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

// errors of a golden's documents against float64.
type errorsOf struct {
	rms, worst, worstMean, worstMeanLong float64
	tokens, flips, notFinite             int
}

func compare(t testing.TB, g modeltest.Golden, docs []modeltest.Document) (r errorsOf) {
	t.Helper()
	square := 0.0
	for i, d := range docs {
		want := g.Docs[i]
		if len(d.NLL) != len(want.NLL) {
			t.Fatalf("document %d: %d scores, want %d", i, len(d.NLL), len(want.NLL))
		}
		for j, v := range d.NLL {
			e := float64(v) - want.NLL[j]
			if math.IsNaN(e) || math.IsInf(e, 0) {
				r.notFinite++
				continue
			}
			square += e * e
			r.worst = math.Max(r.worst, math.Abs(e))
			if d.Top1[j] != (want.Top1[j] == 1) {
				r.flips++
			}
		}
		r.tokens += len(d.NLL)
		mean := math.Abs(modeltest.Sum(d.NLL)-want.Sum) / float64(len(d.NLL))
		if len(d.NLL) >= 60 {
			r.worstMean = math.Max(r.worstMean, mean)
		}
		if len(d.NLL) >= 990 {
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
	limits := map[string]float64{"kla_128": 0.0201, "plain_128": 0.0218, "gva_128": 0.0221, "strong_decay_128": 0.0315}
	for name, limit := range limits {
		for _, opt := range []struct {
			name string
			options
		}{
			{"fp16 operands", options{half: true, poison: true}},
			{"bf16 operands", options{poison: true}},
			{"token by token", options{half: true, poison: true, simple: true}},
		} {
			t.Run(name+"/"+opt.name, func(t *testing.T) {
				g := modeltest.ReadGolden(t, filepath.Join(goldens, name))
				budget := 16384
				if emulated(t) {
					budget = 1024 // the choice of algorithms runs whole batches
				}
				e := open(t, filepath.Join(goldens, name), Config{MaxTokens: budget}, opt.options)
				if emulated(t) && os.Getenv("SURPRISAL_EMULATE_ALL") == "" {
					g.Docs = slices.DeleteFunc(g.Docs,
						func(d modeltest.GoldenDocument) bool { return len(d.NLL) > 300 })
				}
				docs := g.Documents()
				modeltest.Score(t, e, docs, nil, e.Info().MaxTokens)
				r := compare(t, g, docs)
				t.Logf("%d tokens: rms %.4f (limit %.4f), worst %.3f, document means off by at most "+
					"%.5f (60 tokens and more), %.5f (990 and more), %d top-1 differ",
					r.tokens, r.rms, limit, r.worst, r.worstMean, r.worstMeanLong, r.flips)
				if !(r.rms <= limit) || r.notFinite > 0 || !(r.worstMean <= 0.008) || !(r.worstMeanLong <= 0.0006) {
					t.Errorf("rms %.4f (limit %.4f), %d not finite, document means %.5f (limit 0.008), "+
						"%.5f (limit 0.0006)", r.rms, limit, r.notFinite, r.worstMean, r.worstMeanLong)
				}
			})
		}
	}
}
