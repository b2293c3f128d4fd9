package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"surprisal/internal/model"
	"surprisal/internal/testkit/modeltest"
)

// fake is a checkpoint in memory.
type fake map[string][]float32

func (f fake) read(name string, n int) ([]float32, error) {
	v, ok := f[name]
	if !ok || len(v) != n {
		return nil, fmt.Errorf("tensor %s: %d elements asked, %d there", name, n, len(v))
	}
	return v, nil
}

// randomWeights gives a checkpoint of that shape. With hostile, decays reach
// from none to -800 nats a token, side by side.
func randomWeights(c model.Config, seed uint64, hostile bool) fake {
	r := rand.New(rand.NewPCG(seed, 7))
	f := fake{}
	for _, s := range c.Shapes() {
		v := make([]float32, s.Len())
		scale, shift := 1.4/math.Sqrt(float64(s.Shape[len(s.Shape)-1])), 0.0
		switch {
		case strings.Contains(s.Name, "norm") || strings.Contains(s.Name, "ln_f"):
			scale, shift = 0.2, 1
		case strings.HasSuffix(s.Name, "A_log"):
			scale, shift = 0.7, 1.4
		case strings.HasSuffix(s.Name, "dt_bias"):
			scale, shift = 1, -4
		case strings.Contains(s.Name, "conv1d.weight"):
			scale = 0.5
		case strings.HasSuffix(s.Name, "bias"):
			scale = 0.3
		case strings.Contains(s.Name, "wte"):
			scale = 0.7
		}
		for i := range v {
			v[i] = float32(r.NormFloat64()*scale + shift)
			if hostile && strings.HasSuffix(s.Name, "dt_bias") {
				v[i] = []float32{-30, -4, 3, 50}[r.IntN(4)]
			}
			if hostile && strings.HasSuffix(s.Name, "A_log") {
				v[i] = float32(math.Log(16))
			}
		}
		if !c.Kaczmarz && !c.QKL2Norm && strings.HasSuffix(s.Name, "k_proj.weight") {
			// With nothing to bound ||k||, I - k (b*k)' would expand the state and with
			// it any rounding.
			for i := range v {
				v[i] *= 0.3
			}
		}
		f[s.Name] = v
	}
	return f
}

// reference is the model in float64, token by token, written from the formulas
// alone: nll of ids[1:].
func reference(c model.Config, w fake, queryScale float64, ids []int32) []float64 {
	x := make([][]float64, len(ids)-1)
	for t := range x {
		x[t] = widen(w["transformer.wte.weight"][int(ids[t])*c.Width:][:c.Width])
	}
	for l := range c.Layers {
		p := fmt.Sprintf("transformer.h.%d.", l)
		y := make([][]float64, len(x))
		for t := range x {
			y[t] = rmsnorm(x[t], w[p+"norm_1.weight"], c.NormEps)
		}
		for t, v := range refMixer(c, w, p+"attn.", queryScale, y) {
			add(x[t], v)
			h := rmsnorm(x[t], w[p+"norm_2.weight"], c.NormEps)
			a, b := linear(w, p+"mlp.swiglu.w1", h), linear(w, p+"mlp.swiglu.w2", h)
			for i := range a {
				a[i] = silu(a[i]) * b[i]
			}
			add(x[t], linear(w, p+"mlp.swiglu.w3", a))
		}
	}
	nll := make([]float64, len(x))
	for t := range x {
		logits := linear(w, "lm_head", rmsnorm(x[t], w["transformer.ln_f.weight"], c.NormEps))[:c.VocabSize]
		top, s := math.Inf(-1), 0.0
		for _, v := range logits {
			top = math.Max(top, v)
		}
		for _, v := range logits {
			s += math.Exp(v - top)
		}
		nll[t] = math.Log(s) + top - logits[ids[t+1]]
	}
	return nll
}

func refMixer(c model.Config, w fake, p string, queryScale float64, x [][]float64) [][]float64 {
	conv := func(name string) [][]float64 {
		in, out := make([][]float64, len(x)), make([][]float64, len(x))
		for t := range x {
			in[t] = linear(w, p+name+"_proj", x[t])
		}
		for t := range x {
			out[t] = append([]float64(nil), in[t]...)
			if taps := c.ConvSize; c.ShortConv {
				for i := range out[t] {
					s := 0.0
					if c.ConvBias {
						s = float64(w[p+name+"_conv1d.bias"][i])
					}
					for j := range taps {
						if from := t - taps + 1 + j; from >= 0 {
							s += float64(w[p+name+"_conv1d.weight"][i*taps+j]) * in[from][i]
						}
					}
					out[t][i] = s
				}
			}
			for i, v := range out[t] {
				out[t][i] = silu(v)
			}
		}
		return out
	}
	q, k, v := conv("q"), conv("k"), conv("v")
	state := make([][]float64, c.VHeads)
	for h := range state {
		state[h] = make([]float64, c.K*c.V)
	}
	out := make([][]float64, len(x))
	for t := range x {
		f := linear(w, p+"f_proj.1", linear(w, p+"f_proj.0", x[t]))
		b, ww := linear(w, p+"b_proj", x[t]), linear(w, p+"w_proj", x[t])
		gate := linear(w, p+"g_proj.1", linear(w, p+"g_proj.0", x[t]))
		var eta []float64
		if c.Kaczmarz {
			eta = linear(w, p+"eta_proj", x[t])
		}
		o := make([]float64, c.VHeads*c.V)
		for hv := range c.VHeads {
			h := hv / (c.VHeads / c.Heads)
			kh, qh := append([]float64(nil), k[t][h*c.K:][:c.K]...), append([]float64(nil), q[t][h*c.K:][:c.K]...)
			k2, q2, step := dot(kh, kh), dot(qh, qh), 1.0
			if c.Kaczmarz {
				step = sigmoid(eta[h]) / math.Max(k2, c.KaczmarzEps)
			}
			gain := func(v float64) float64 {
				if c.Kaczmarz {
					return math.Min(math.Max(sigmoid(v)*step, 0), 1)
				}
				return sigmoid(v)
			}
			s, erased := state[hv], make([]float64, c.V)
			for i := range c.K {
				if c.QKL2Norm {
					kh[i] /= math.Sqrt(k2 + 1e-6)
					qh[i] /= math.Sqrt(q2 + 1e-6)
				}
				z := f[h*c.K+i] + float64(w[p+"dt_bias"][h*c.K+i])
				decay := math.Exp(-math.Exp(float64(w[p+"A_log"][h])) * (math.Max(z, 0) +
					math.Log1p(math.Exp(-math.Abs(z)))))
				erase := gain(b[h*c.K+i])
				if c.NegEigval {
					erase *= 2
				}
				for j := range c.V {
					s[i*c.V+j] *= decay
					erased[j] += erase * kh[i] * s[i*c.V+j]
				}
			}
			oh := o[hv*c.V:][:c.V]
			for j := range c.V {
				u := gain(ww[hv*c.V+j])*v[t][hv*c.V+j] - erased[j]
				for i := range c.K {
					s[i*c.V+j] += kh[i] * u
					oh[j] += queryScale * qh[i] * s[i*c.V+j]
				}
			}
			for j, n := range rmsnorm(oh, w[p+"o_norm.weight"], c.NormEps) {
				oh[j] = n * silu(gate[hv*c.V+j])
			}
		}
		out[t] = linear(w, p+"o_proj", o)
	}
	return out
}

func widen(v []float32) []float64 {
	o := make([]float64, len(v))
	for i := range v {
		o[i] = float64(v[i])
	}
	return o
}

func dot(a, b []float64) (s float64) {
	for i := range a {
		s += a[i] * b[i]
	}
	return s
}

func add(a, b []float64) {
	for i := range a {
		a[i] += b[i]
	}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
func silu(x float64) float64    { return x * sigmoid(x) }

func rmsnorm(x []float64, w []float32, eps float64) []float64 {
	o, r := make([]float64, len(x)), 1/math.Sqrt(dot(x, x)/float64(len(x))+eps)
	for i := range x {
		o[i] = x[i] * r * float64(w[i])
	}
	return o
}

// linear is weight [out, in] x + bias, of which a model has what the config says.
func linear(w fake, name string, x []float64) []float64 {
	weight, bias := w[name+".weight"], w[name+".bias"]
	o := make([]float64, len(weight)/len(x))
	for i := range o {
		for j, v := range x {
			o[i] += float64(weight[i*len(x)+j]) * v
		}
		if bias != nil {
			o[i] += float64(bias[i])
		}
	}
	return o
}

func randomDoc(r *rand.Rand, vocab, n int) modeltest.Document {
	d := modeltest.Document{IDs: make([]int32, n+1)}
	for i := range d.IDs {
		d.IDs[i] = int32(r.IntN(vocab))
	}
	return d
}

// shapes are models of awkward sizes: no width is a multiple of a vector.
func awkward() map[string]model.Config {
	base := model.Config{
		VocabSize: 61, PaddedVocabSize: 64, Layers: 2, Width: 23, Inner: 37, NormEps: 1e-5, BlockSize: 128,
		Heads: 3, VHeads: 3, K: 7, V: 7, ShortConv: true, ConvSize: 4, Kaczmarz: true, KaczmarzEps: 1e-6,
	}
	with := func(change func(c *model.Config)) model.Config {
		c := base
		change(&c)
		return c
	}
	return map[string]model.Config{
		"kla":        base,
		"one-wide":   with(func(c *model.Config) { c.Heads, c.VHeads, c.K, c.V, c.Width, c.Inner = 1, 1, 1, 1, 1, 1 }),
		"plain":      with(func(c *model.Config) { c.Kaczmarz, c.QKL2Norm = false, true }),
		"neither":    with(func(c *model.Config) { c.Kaczmarz, c.K, c.V = false, 17, 17 }),
		"both":       with(func(c *model.Config) { c.QKL2Norm, c.NegEigval = true, true }),
		"grouped":    with(func(c *model.Config) { c.VHeads, c.V, c.K = 9, 19, 33 }),
		"wide-value": with(func(c *model.Config) { c.V, c.K = 85, 31 }),
		"biases":     with(func(c *model.Config) { c.Bias, c.ConvBias, c.NegEigval = true, true, true }),
		"no-conv":    with(func(c *model.Config) { c.ShortConv = false }),
		"one-tap":    with(func(c *model.Config) { c.ConvSize = 1 }),
		"many-taps":  with(func(c *model.Config) { c.ConvSize, c.ConvBias = 16, true }),
		"vocabulary": with(func(c *model.Config) { c.VocabSize, c.PaddedVocabSize, c.Layers = 1031, 1088, 1 }),
	}
}

func engineOf(t testing.TB, w fake, c model.Config, cfg Config) *Engine {
	t.Helper()
	e, err := newEngine(w, c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// TestReference holds every kind of model, at every boundary length, against
// the plain float64 one.
func TestReference(t *testing.T) {
	lengths := []int{1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 97, 127, 129, 1023, 1025}
	for name, c := range awkward() {
		for _, hostile := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/hostile=%v", name, hostile), func(t *testing.T) {
				t.Parallel()
				w := randomWeights(c, 3, hostile)
				e := engineOf(t, w, c, Config{MaxTokens: 256})
				r := rand.New(rand.NewPCG(11, 12))
				lengths := lengths
				if hostile && name != "kla" {
					lengths = lengths[:13] // to 129, for time's sake
				}
				docs := make([]modeltest.Document, len(lengths))
				for i, n := range lengths {
					docs[i] = randomDoc(r, c.VocabSize, n)
				}
				modeltest.Score(t, e, docs, nil, 256)
				worst := 0.0
				for i, d := range docs {
					for j, want := range reference(c, w, e.cfg.QueryScale, d.IDs) {
						if err := math.Abs(float64(d.NLL[j]) - want); !(err <= 2e-4) {
							t.Fatalf("%d tokens: token %d is %g, want %g", lengths[i], j, d.NLL[j], want)
						} else {
							worst = math.Max(worst, err)
						}
					}
				}
				t.Logf("worst token %.1e nats", worst)
			})
		}
	}
}
