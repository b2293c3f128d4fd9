//go:build cuda

package gpu

import (
	"cmp"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"gorgonia.org/cu"

	"surprisal/internal/score"
	"surprisal/internal/testkit/modeltest"
)

// Positions of columns among a product's weight rows, as in eight_bit_quantize.cuh.
func positionPlain(c int) int { return c/32*32 + c%8/2*8 + c%32/8*2 + c%2 }
func positionResidual(c int) int {
	return c/16*16 + c%4/2*8 + c%16/4*2 + c%2
}
func positionSwiGLU(c, which int) int {
	o := c%128/64*16 + c%16
	return c/128*256 + (o/2*2+which)*8 + c%64/16*2 + c%2
}

// quantize gives v in int8 and its scale, by the kernels' operations.
func quantize(v []float32) ([]int8, float32) {
	top := float32(0)
	for _, x := range v {
		top = max(top, float32(math.Abs(float64(x))))
	}
	inverse := float32(0)
	if top > 1e-30 {
		inverse = 127 / top
	}
	q := make([]int8, len(v))
	for i, x := range v {
		q[i] = int8(math.RoundToEven(float64(x) * float64(inverse)))
	}
	return q, top / 127
}

func dot(x, w []int8) int {
	s := 0
	for i := range x {
		s += int(x[i]) * int(w[i])
	}
	return s
}

// addBlocks is r + the blocks' sums of x w by x's scales, times w's scale.
func addBlocks(r float32, x, w []int8, xs func(block int) float32, ws float32) float32 {
	s := float32(0)
	for k := 0; k < len(x); k += int8Block {
		to := min(k+int8Block, len(x))
		s = float32(float64(dot(x[k:to], w[k:to]))*float64(xs(k/int8Block)) + float64(s))
	}
	return r + float32(s*ws)
}

func floats(v []float64) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(x)
	}
	return out
}

// TestInt8Steps: each step of a layer, from given inputs, against sums in integers:
// to the bit, but for what passes an exponential or a square root.
func TestInt8Steps(t *testing.T) {
	for _, name := range []string{"kla_128", "gva_128"} {
		t.Run(name, func(t *testing.T) {
			needGPU(t)
			b := bench{open(t, folder(t, name), Config{MaxTokens: 256, Precision: "int8"}, options{poison: true}), t}
			c, q, y := b.model, &b.Engine.int8, &b.w.layers[0]
			const n = 40
			r, rows, d, vd := rand.New(rand.NewPCG(1, 2)), b.rows, c.Width, c.VHeads*c.V
			x := make([]float32, n*d)
			for i := range x {
				x[i] = float32(r.NormFloat64() * math.Pow(10, float64(i/d%5-2)))
			}
			clear(x[3*d : 4*d])
			put(b, b.buf.x, x)
			norm := get[float32](b, y.norm1, d)
			b.run(func() error { return b.normInt8(y.norm1, n) })
			x8, xs := get[int8](b, q.x, n*d), get[float32](b, q.xs, n)
			for i := range n {
				u, square := make([]float32, d), 0.0
				for j := range d {
					v := x[i*d+j]
					u[j], square = v*norm[j], square+float64(v)*float64(v)
				}
				want, scale := quantize(u)
				if !slices.Equal(x8[i*d:][:d], want) {
					t.Fatalf("norm: row %d differs", i)
				}
				near(t, "norm's scale", []float64{float64(xs[i])},
					[]float64{float64(scale) / math.Sqrt(square/float64(d)+c.NormEps)}, 1e-6, 0)
			}
			weight := func(w quantized, at, k int) ([]int8, float32) {
				return get[int8](b, w.w+cu.DevicePtr(at*k), k), get[float32](b, w.scales+cu.DevicePtr(4*at), 1)[0]
			}

			b.run(func() error { return b.inInt8(0, rows) })
			p := b.acts(b.buf.p, n*b.cols.total)
			for col := 0; col < b.cols.total; col += 37 {
				w, s := weight(y.int8.in, positionPlain(col), d)
				for i := range n {
					want := activations().decode(activations().encode([]float64{float64(float32(dot(x8[i*d:][:d],
						w)) * xs[i] * s)}))[0]
					if got := p[i*b.cols.total+col]; got != want {
						t.Fatalf("in: row %d, column %d is %v, want %v", i, col, got, want)
					}
				}
			}

			b.run(func() error { return b.upInt8(0, rows) })
			blocks := (c.Inner + int8Block - 1) / int8Block
			a8, as := get[int8](b, q.a, n*c.Inner), get[float32](b, q.as, blocks*rows)
			h := make([]float64, n*c.Inner)
			for col := range c.Inner {
				w1, s1 := weight(y.int8.up, positionSwiGLU(col, 0), d)
				w2, s2 := weight(y.int8.up, positionSwiGLU(col, 1), d)
				for i := range n {
					one := float64(dot(x8[i*d:][:d], w1)) * float64(xs[i]) * float64(s1)
					h[i*c.Inner+col] = one * sig(one) * float64(dot(x8[i*d:][:d], w2)) * float64(xs[i]) * float64(s2)
				}
			}
			for i := range n {
				for k := range blocks {
					from, to := i*c.Inner+k*int8Block, i*c.Inner+min(c.Inner, (k+1)*int8Block)
					top := 0.0
					for _, v := range h[from:to] {
						top = math.Max(top, math.Abs(v))
					}
					if s := float64(as[k*rows+i]); !(math.Abs(s-top/127) <= 1e-5*top/127) {
						t.Fatalf("up: row %d, block %d has scale %v, want %v", i, k, s, top/127)
					}
					for j := from; j < to && top > 0; j++ {
						if e := math.Abs(float64(a8[j]) - h[j]/top*127); !(e <= 0.501) {
							t.Fatalf("up: row %d, column %d is %d, want %v", i, j-i*c.Inner, a8[j], h[j]/top*127)
						}
					}
				}
			}

			put(b, b.buf.x, x)
			b.run(func() error { return b.downInt8(0, rows) })
			got := get[float32](b, b.buf.x, n*d)
			for col := 0; col < d; col += 5 {
				w, s := weight(y.int8.down, positionResidual(col), c.Inner)
				for i := range n {
					want := addBlocks(x[i*d+col], a8[i*c.Inner:][:c.Inner], w,
						func(k int) float32 { return as[k*rows+i] }, s)
					if got[i*d+col] != want {
						t.Fatalf("down: row %d, column %d is %v, want %v", i, col, got[i*d+col], want)
					}
				}
			}

			o := floats(b.putActs(b.buf.o, normal(r, n*vd, 1)))
			put(b, b.buf.x, x)
			b.run(func() error { return b.outInt8(0, n, rows) })
			got = get[float32](b, b.buf.x, n*d)
			for col := 0; col < d; col += 5 {
				w, s := weight(y.int8.out, positionResidual(col), vd)
				for i := range n {
					var o8 []int8
					var os []float32
					for k := 0; k < vd; k += int8Block {
						v, scale := quantize(o[i*vd+k:][:int8Block])
						o8, os = append(o8, v...), append(os, scale)
					}
					if want := addBlocks(x[i*d+col], o8, w, func(k int) float32 { return os[k] },
						s); got[i*d+col] != want {
						t.Fatalf("out: row %d, column %d is %v, want %v", i, col, got[i*d+col], want)
					}
				}
			}
		})
	}
}

// TestInt8Weights: a matrix's rows are the checkpoint's, quantized.
func TestInt8Weights(t *testing.T) {
	needGPU(t)
	dir := folder(t, "kla_128")
	half := bench{open(t, dir, Config{MaxTokens: 256}, options{untuned: true, noTable: true}), t}
	b := bench{open(t, dir, Config{MaxTokens: 256, Precision: "int8"}, options{untuned: true, noTable: true}), t}
	c := b.model
	for l := range b.w.layers {
		w := floats(half.acts(half.w.layers[l].down, c.Width*c.Inner))
		got, scales := get[int8](b, b.w.layers[l].int8.down.w, roundUp(c.Width, 256)*c.Inner), get[float32](b,
			b.w.layers[l].int8.down.scales, roundUp(c.Width, 256))
		for col := range c.Width {
			want, scale := quantize(w[col*c.Inner:][:c.Inner])
			if at := positionResidual(col); !slices.Equal(got[at*c.Inner:][:c.Inner], want) || scales[at] != scale {
				t.Fatalf("layer %d: w3's row %d differs", l, col)
			}
		}
	}
}

// TestInt8NaN: a row of the residual stream that is not finite gives numbers that are
// not, and no other row does.
func TestInt8NaN(t *testing.T) {
	needGPU(t)
	b := bench{open(t, folder(t, "kla_128"), Config{MaxTokens: 256, Precision: "int8"}, options{poison: true}), t}
	d, n := b.model.Width, 8
	x := floats(normal(rand.New(rand.NewPCG(3, 3)), n*d, 1))
	x[2*d+5], x[5*d+d-1] = float32(math.NaN()), float32(math.Inf(1))
	put(b, b.buf.x, x)
	b.run(func() error {
		if err := b.normInt8(b.w.layers[0].norm1, n); err != nil {
			return err
		}
		if err := b.upInt8(0, b.rows); err != nil {
			return err
		}
		return b.downInt8(0, b.rows)
	})
	for i, v := range get[float32](b, b.buf.x, n*d) {
		finite := !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0)
		if bad := i/d == 2 || i/d == 5; finite == bad {
			t.Fatalf("row %d, column %d is %v", i/d, i%d, v)
		}
	}
}

// TestInt8Goldens holds per-token scores in int8 against the float64 reference.
func TestInt8Goldens(t *testing.T) {
	if testing.Short() && emulated(t) {
		t.Skip("the kernels on the CPU take minutes")
	}
	for name, limit := range map[string]float64{"kla_128": 0.08, "plain_128": 0.08, "gva_128": 0.08,
		"strong_decay_128": 0.16} {
		t.Run(name, func(t *testing.T) {
			g := modeltest.ReadGolden(t, filepath.Join(goldens, name))
			budget := 16384
			if emulated(t) {
				budget = 1024
			}
			e := open(t, filepath.Join(goldens, name), Config{MaxTokens: budget, Precision: "int8"},
				options{half: true, poison: true})
			if emulated(t) && os.Getenv("SURPRISAL_EMULATE_ALL") == "" {
				g.Docs = slices.DeleteFunc(g.Docs, func(d modeltest.GoldenDocument) bool { return len(d.NLL) > 300 })
			}
			docs := g.Documents()
			modeltest.Score(t, e, docs, nil, e.Info().MaxTokens)
			r := compare(t, g, docs)
			t.Logf("%d tokens: rms %.4f (limit %.2f), worst %.3f, document means off by at most %.5f "+
				"(60 tokens and more)", r.tokens, r.rms, limit, r.worst, r.worstMean)
			if !(r.rms <= limit) || r.notFinite > 0 {
				t.Errorf("rms %.4f (limit %.2f), %d not finite", r.rms, limit, r.notFinite)
			}
		})
	}
}

// TestInt8Bits: the same scores to the bit in any batch, order and budget, in int8.
func TestInt8Bits(t *testing.T) {
	needGPU(t)
	names, lens, budgets := []string{"kla_128", "gva_128", "no conv"}, lengths, []int{16384, 2048, 512}
	if emulated(t) {
		names, lens, budgets = names[:1], []int{1, 2, 17, 63, 64, 65, 129}, []int{512, 192}
	}
	if emulated(t) && testing.Short() {
		lens, budgets = []int{1, 17, 64, 65}, []int{192}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			var first []modeltest.Document
			for _, budget := range budgets {
				e := open(t, folder(t, name), Config{MaxTokens: budget, Precision: "int8"}, options{half: true,
					poison: true, untuned: emulated(t)})
				docs := randomDocs(lens, e.Info().VocabSize, 5)
				first = sameInOrders(t, e, docs, first, budget)
				again := clone(docs)
				modeltest.Score(t, e, again, nil, max(score.SplitMultiple,
					budget/4/score.SplitMultiple*score.SplitMultiple))
				sameBits(t, "smaller batches", first, again)
			}
		})
	}
}

// TestInt8Demo holds int8 to its limits on the demo corpus, against float64, and its
// bits to each other in every budget and order.
func TestInt8Demo(t *testing.T) {
	needGPU(t)
	const model = "../../examples/demo/model"
	docs, want := readDemo(t, model)
	budgets := []int{2048, 8192, 32768}
	if emulated(t) {
		if testing.Short() {
			t.Skip("the kernels on the CPU take minutes")
		}
		n := 0
		for i := range docs {
			if len(docs[i].IDs) <= 300 && n < 8 {
				docs[n], want[n] = docs[i], want[i]
				n++
			}
		}
		docs, want, budgets = docs[:n], want[:n], []int{512}
	}
	var first []modeltest.Document
	for _, budget := range budgets {
		e := open(t, model, Config{MaxTokens: budget, Precision: "int8"}, options{half: true, poison: true})
		first = sameInOrders(t, e, docs, first, budget)
	}
	n := len(docs)
	square, worst, bias, tokens := 0.0, 0.0, 0.0, 0
	got, reference := make([]float64, n), make([]float64, n)
	for i, d := range first {
		sum := modeltest.Sum(d.NLL)
		got[i], reference[i] = sum/float64(want[i].Tokens), want[i].SumNLL/float64(want[i].Tokens)
		off := got[i] - reference[i]
		square, worst = square+off*off, math.Max(worst, math.Abs(off))
		bias, tokens = bias+sum-want[i].SumNLL, tokens+want[i].Tokens
	}
	rms := math.Sqrt(square / float64(n))
	bias /= float64(tokens)
	a, b := ranks(got), ranks(reference)
	apart, crossed := 0.0, 0
	for i := range a {
		apart += float64((a[i] - b[i]) * (a[i] - b[i]))
		if (float64(a[i]) < 0.6*float64(n)) != (float64(b[i]) < 0.6*float64(n)) {
			crossed++
		}
	}
	spearman := 1 - 6*apart/float64(n*(n*n-1))
	t.Logf("%d documents: means off by %.5f nats rms, %.5f at worst, %.5f a token; Spearman %.6f; "+
		"%d on the other side of the 60th percentile", n, rms, worst, bias, spearman, crossed)
	if emulated(t) {
		if !(worst <= 0.1) {
			t.Errorf("a mean is off by %.5f nats", worst)
		}
		return
	}
	if !(rms <= 0.008) || !(worst <= 0.035) || !(math.Abs(bias) <= 0.001) || !(spearman >= 0.9999) || crossed > 2 {
		t.Error("beyond the limits: 0.008, 0.035 and 0.001 nats, 0.9999, 2 documents")
	}
}

// ranks gives each number's place among all.
func ranks(v []float64) []int {
	order := make([]int, len(v))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(v[a], v[b]) })
	r := make([]int, len(v))
	for i, j := range order {
		r[j] = i
	}
	return r
}
