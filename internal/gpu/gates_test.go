//go:build cuda

package gpu

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/cu"

	"surprisal/internal/score"
)

// gateCase is what the pass from projections to the recurrence's operands reads, as
// exact numbers, and the operands in float64.
type gateCase struct {
	bench
	lens, start                 []int // of documents; of tokens: their document's first
	p, f                        []float64
	convW, convB, rate, dt, eta []float32
	q, k, bk, wv, g             []float64
}

// TestGates holds the pass from projections to the recurrence's operands against
// float64, for every option, over documents that begin inside a warp's run.
func TestGates(t *testing.T) {
	needGPU(t)
	// "wide" has the gates of kla_128.
	names := slices.DeleteFunc(shapeNames(t), func(name string) bool { return name == "wide" })
	for _, name := range append(names, "kla_128", "plain_128", "gva_128", "strong_decay_128") {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, name)
			var c gateCase
			for i, half := range []bool{true, false} {
				opt := options{half: half, poison: true, stored: true}
				c.bench = bench{open(t, dir, Config{MaxTokens: 256}, opt), t}
				if i == 0 {
					c.draw([]int{1, 2, 3, 4, 33, 64, 31, 1, 50})
					c.reference()
				}
				c.check()
				c.showsNaN()
			}
		})
	}
}

// draw makes the inputs: mostly ordinary ones, some at the ends of their range.
func (c *gateCase) draw(lens []int) {
	c.lens = lens
	for _, n := range lens {
		first := len(c.start)
		for range n {
			c.start = append(c.start, first)
		}
	}
	b, r, total := c.bench, rand.New(rand.NewPCG(4, 1)), len(c.start)
	act := activations()
	c.p = act.decode(act.encode(normal(r, total*b.cols.total, 2)))
	c.f = normal(r, total*b.model.Heads*b.model.K, 4)
	for i := range c.f {
		switch i % 41 {
		case 0:
			c.f[i] = -30 * r.Float64() // next to no decay
		case 1:
			c.f[i] = 6e4 * r.Float64()
		}
	}
	c.f = act.decode(act.encode(c.f))
	for i := range c.p {
		if i%61 == 0 && i%b.cols.total >= b.cols.b {
			c.p[i] *= 64 // gates wide open or shut
		}
	}
	y, kd, ch := &b.w.layers[0], b.model.Heads*b.model.K, b.channels()
	c.convW, c.convB, c.eta = get[float32](b, y.convW, taps*ch), make([]float32, ch), make([]float32, b.model.Heads)
	c.rate, c.dt = get[float32](b, y.rate, b.model.Heads), get[float32](b, y.dtBias, kd)
	if y.convB != 0 {
		c.convB = get[float32](b, y.convB, ch)
	}
	if y.etaBias != 0 {
		c.eta = get[float32](b, y.etaBias, b.model.Heads)
	}
}

// conv is channel i of a token, convolved and through SiLU.
func (c *gateCase) conv(tok, i int) float64 {
	a, ch := float64(c.convB[i]), c.channels()
	for j := range taps {
		if u := tok - taps + 1 + j; u >= c.start[tok] {
			a += float64(c.convW[j*ch+i]) * c.p[u*c.cols.total+i]
		}
	}
	return a * sig(a)
}

func (c *gateCase) reference() {
	m, col, total := c.model, c.cols, len(c.start)
	kd, vd := m.Heads*m.K, m.VHeads*m.V
	c.q, c.k = make([]float64, total*kd), make([]float64, total*kd)
	c.bk, c.g = make([]float64, total*kd), make([]float64, total*kd)
	c.wv = make([]float64, total*vd)
	inParallel(total, func(tok int) {
		p := c.p[tok*col.total:][:col.total]
		for h := range m.Heads {
			qq, kk := 0.0, 0.0
			q, k := c.q[tok*kd+h*m.K:][:m.K], c.k[tok*kd+h*m.K:][:m.K]
			for i := range m.K {
				q[i], k[i] = c.conv(tok, h*m.K+i), c.conv(tok, kd+h*m.K+i)
				qq, kk = qq+q[i]*q[i], kk+k[i]*k[i]
			}
			gate := sig
			if m.Kaczmarz {
				step := sig(p[col.eta+h]+float64(c.eta[h])) / math.Max(kk, m.KaczmarzEps)
				gate = func(x float64) float64 { return math.Min(1, sig(x)*step) }
			}
			for i := range m.K {
				if m.QKL2Norm {
					q[i] /= math.Sqrt(qq + 1e-6)
					k[i] /= math.Sqrt(kk + 1e-6)
				}
				e := gate(p[col.b+h*m.K+i])
				if m.NegEigval {
					e *= 2
				}
				j := tok*kd + h*m.K + i
				c.bk[j] = e * k[i]
				x := c.f[j] + float64(c.dt[h*m.K+i])
				c.g[j] = math.Max(-65504, -float64(c.rate[h])*(math.Max(x, 0)+math.Log1p(math.Exp(-math.Abs(x)))))
			}
			per := vd / m.Heads
			for i := h * per; i < (h+1)*per; i++ {
				c.wv[tok*vd+i] = gate(p[col.w+i]) * c.conv(tok, 2*kd+i)
			}
		}
	})
}

// gated runs the kernels on projections p and f.
func (c *gateCase) gated(p, f []float64) {
	c.t.Helper()
	batch := &score.Batch{}
	for _, n := range c.lens {
		batch.Append(make([]int32, n), make([]int32, n), nil)
	}
	batch.Alloc()
	c.putActs(c.buf.p, p)
	c.putActs(c.buf.f, f)
	c.run(func() error {
		d, err := c.upload(batch)
		if err != nil {
			return err
		}
		if err := c.embed(d); err != nil { // seq_of
			return err
		}
		return c.gates(0, d)
	})
}

func (c *gateCase) decays() []float64 { return fp16().decode(get[uint16](c.bench, c.buf.g, len(c.g))) }

// check compares with the reference.
func (c *gateCase) check() {
	c.t.Helper()
	c.gated(c.p, c.f)
	limit := c.operands().roundoff() * 1.05
	near(c.t, "q", c.elements(c.buf.q, len(c.q)), c.q, limit, 2e-6)
	near(c.t, "k", c.elements(c.buf.k, len(c.k)), c.k, limit, 2e-6)
	near(c.t, "b k", c.elements(c.buf.bk, len(c.bk)), c.bk, limit, 2e-6)
	near(c.t, "w v", c.elements(c.buf.wv, len(c.wv)), c.wv, limit, 2e-6)
	near(c.t, "g", c.decays(), c.g, 0x1p-11*1.05, 0x1p-25)
}

// showsNaN puts a NaN into each input, and looks for it where it belongs.
func (c *gateCase) showsNaN() {
	c.t.Helper()
	m, col, channel := c.model, c.cols, 5
	kd, vd := m.Heads*m.K, m.VHeads*m.V
	p, f := slices.Clone(c.p), slices.Clone(c.f)
	tok := func(kind int) int { return 44 + 8*kind } // in the document of 64
	columns := []int{col.q + channel, col.k + channel, col.v + channel, col.b + channel, col.w + channel}
	if m.Kaczmarz {
		columns = append(columns, col.eta)
	}
	for kind, at := range columns {
		p[tok(kind)*col.total+at] = math.NaN()
	}
	f[tok(6)*kd+channel] = math.NaN()
	c.gated(p, f)
	q, k := c.elements(c.buf.q, len(c.q)), c.elements(c.buf.k, len(c.k))
	bk, wv, g := c.elements(c.buf.bk, len(c.bk)), c.elements(c.buf.wv, len(c.wv)), c.decays()
	shows := map[string]bool{
		"q":        math.IsNaN(q[tok(0)*kd+channel]),
		"k":        math.IsNaN(k[tok(1)*kd+channel]),
		"k in b k": math.IsNaN(bk[tok(1)*kd+channel]),
		"v":        math.IsNaN(wv[tok(2)*vd+channel]),
		"b":        math.IsNaN(bk[tok(3)*kd+channel]),
		"w":        math.IsNaN(wv[tok(4)*vd+channel]),
		"f":        math.IsNaN(g[tok(6)*kd+channel]),
		"none elsewhere": !math.IsNaN(q[tok(1)*kd+channel] + k[tok(0)*kd+channel] + bk[tok(2)*kd+channel] +
			wv[tok(3)*vd+channel] + g[tok(0)*kd+channel]),
	}
	if m.Kaczmarz {
		shows["eta in b k"], shows["eta in w v"] = math.IsNaN(bk[tok(5)*kd]), math.IsNaN(wv[tok(5)*vd])
		shows["k in w v"] = math.IsNaN(wv[tok(1)*vd])
	}
	for what, ok := range shows {
		if !ok {
			c.t.Errorf("NaN: %s: not so", what)
		}
	}
}

// operands is the format of the recurrence's operands.
func (b bench) operands() *format {
	if b.opt.half {
		return fp16()
	}
	return bf16()
}

func (b bench) elements(p cu.DevicePtr, n int) []float64 {
	return b.operands().decode(get[uint16](b, p, n))
}
