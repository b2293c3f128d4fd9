package cpu

import (
	"math"
	"path/filepath"
	"testing"

	"surprisal/internal/testkit/modeltest"
)

const goldens = "../../../testdata/goldens"

// open gives an engine for a checkpoint folder, closed with the test.
func open(t testing.TB, dir string, cfg Config) *Engine {
	t.Helper()
	ckpt, mc := modeltest.Open(t, dir)
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

// TestGoldens holds per-token scores against the float64 reference.
func TestGoldens(t *testing.T) {
	for _, name := range []string{
		"kla", "plain", "gva", "expand_v", "neg_eigval", "no_conv", "kla_l2norm",
		"kla_128", "plain_128", "gva_128", "strong_decay_128",
	} {
		inEverySet(t, name, func(t *testing.T, set string) {
			g := modeltest.ReadGolden(t, filepath.Join(goldens, name))
			e := open(t, filepath.Join(goldens, name), Config{Set: set})
			docs := g.Documents()
			modeltest.Score(t, e, docs, nil, e.Info().MaxTokens)
			worst, worstMean, flips, n := 0.0, 0.0, 0, 0
			for i, d := range docs {
				want := g.Docs[i]
				if len(d.NLL) != len(want.NLL) {
					t.Fatalf("document %d: %d scores, want %d", i, len(d.NLL), len(want.NLL))
				}
				for j, v := range d.NLL {
					worst = math.Max(worst, math.Abs(float64(v)-want.NLL[j]))
					if math.IsNaN(float64(v)) {
						t.Fatalf("document %d: token %d is NaN", i, j)
					}
					if d.Top1[j] != (want.Top1[j] == 1) {
						flips++
					}
				}
				n += len(d.NLL)
				worstMean = math.Max(worstMean, math.Abs(modeltest.Sum(d.NLL)-want.Sum)/float64(len(d.NLL)))
			}
			t.Logf("%d tokens: worst token %.2e nats, worst mean %.2e, %d top-1 differ", n, worst, worstMean, flips)
			if worst > 2e-4 || worstMean > 5e-5 {
				t.Errorf("worst token %.2e (limit 2e-4), worst mean %.2e (limit 5e-5)", worst, worstMean)
			}
			if flips > n/2000 {
				t.Errorf("%d of %d top-1 flags differ", flips, n) // ties to rounding only
			}

			one := open(t, filepath.Join(goldens, name), Config{QueryScale: 1, Set: set})
			modeltest.Score(t, one, docs, nil, one.Info().MaxTokens)
			worstMean = 0
			for i, d := range docs {
				worstMean = math.Max(worstMean, math.Abs(modeltest.Sum(d.NLL)-g.Docs[i].SumOne)/float64(len(d.NLL)))
			}
			t.Logf("query scale 1: worst mean %.2e", worstMean)
			if !(worstMean <= 5e-5) {
				t.Errorf("query scale 1: worst mean %.2e (limit 5e-5)", worstMean)
			}
		})
	}
}
