//go:build cuda

package gpu

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	"surprisal/internal/model"
	"surprisal/internal/model/cpu"
	"surprisal/internal/testkit/ckptgen"
	"surprisal/internal/testkit/modeltest"
)

// shapes are small models that between them have every option and every size of
// head that the kernels were written for.
var shapes = map[string]func(*model.Config){
	"k64 v64":    func(c *model.Config) { c.Heads, c.VHeads, c.K, c.V = 3, 3, 64, 64 },
	"k64 v128":   func(c *model.Config) { c.Heads, c.VHeads, c.K, c.V = 2, 4, 64, 128 },
	"k128 v64":   func(c *model.Config) { c.V = 64 },
	"k128 v256":  func(c *model.Config) { c.V = 256 },
	"no conv":    func(c *model.Config) { c.ShortConv = false },
	"two taps":   func(c *model.Config) { c.ConvSize, c.ConvBias = 2, true },
	"negative":   func(c *model.Config) { c.NegEigval = true },
	"l2 norm":    func(c *model.Config) { c.QKL2Norm = true },
	"plain":      func(c *model.Config) { c.Kaczmarz, c.QKL2Norm = false, true },
	"biases":     func(c *model.Config) { c.Bias, c.ConvBias = true, true },
	"grouped":    func(c *model.Config) { c.VHeads = 6 },
	"odd widths": func(c *model.Config) { c.Width, c.Inner, c.VocabSize, c.PaddedVocabSize = 200, 344, 517, 576 },
	"wide":       func(c *model.Config) { c.Width, c.Layers = 4360, 1 },
}

func shapeNames(t testing.TB) []string {
	t.Helper()
	if testing.Short() && emulated(t) { // minutes otherwise
		return []string{"biases", "k64 v128", "odd widths", "two taps"}
	}
	var names []string
	for n := range shapes {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// folder is a golden's, or one made for a shape.
func folder(t testing.TB, name string) string {
	t.Helper()
	change, ok := shapes[name]
	if !ok {
		return filepath.Join(goldens, name)
	}
	c, err := model.LoadConfig(filepath.Join(goldens, "kla_128"))
	if err != nil {
		t.Fatal(err)
	}
	c.Name = "shape"
	change(&c)
	dir := t.TempDir()
	if err := ckptgen.Write(dir, c, ckptgen.Options{Seed: 1}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestShapes holds every option against the CPU engine, which runs in fp32 and is
// held against float64 itself.
func TestShapes(t *testing.T) {
	needGPU(t)
	for _, name := range shapeNames(t) {
		if name == "wide" && emulated(t) {
			continue // minutes
		}
		t.Run(name, func(t *testing.T) {
			dir := folder(t, name)
			lens, budget := lengths, 8192
			if emulated(t) {
				budget = 512 // the choice of algorithms runs whole batches
				lens = []int{1, 2, 17, 63, 64, 65, 129}
			}
			ckpt, mc := modeltest.Open(t, dir)
			defer ckpt.Close()
			ref, err := cpu.New(ckpt, mc, cpu.Config{MaxTokens: 8192})
			if err != nil {
				t.Fatal(err)
			}
			defer ref.Close()
			want := randomDocs(lens, mc.VocabSize, 8)
			modeltest.Score(t, ref, want, nil, 8192)
			for _, opt := range []options{{poison: true}, {poison: true, half: true},
				{poison: true, half: true, simple: true}} {
				e := open(t, dir, Config{MaxTokens: budget}, opt)
				docs := clone(want)
				modeltest.Score(t, e, docs, nil, budget)
				square, n, worst := 0.0, 0, 0.0
				for i := range docs {
					for j, v := range docs[i].NLL {
						d := float64(v) - float64(want[i].NLL[j])
						if math.IsNaN(d) || math.IsInf(d, 0) {
							t.Fatalf("document %d, token %d: %v", i, j, v)
						}
						square, n, worst = square+d*d, n+1, math.Max(worst, math.Abs(d))
					}
				}
				rms := math.Sqrt(square / float64(n))
				t.Logf("half %v, simple %v: rms %.5f nats, worst %.4f, of %d tokens", opt.half, opt.simple, rms, worst,
					n)
				if !(rms <= 0.02) {
					t.Errorf("half %v, simple %v: rms %.5f nats, limit 0.02", opt.half, opt.simple, rms)
				}
			}
		})
	}
}
