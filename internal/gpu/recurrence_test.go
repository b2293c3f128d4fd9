//go:build cuda

package gpu

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"surprisal/internal/score"
)

// recurrenceCase is the recurrence's operands, as exact numbers, and its gated
// output in float64.
type recurrenceCase struct {
	lens           []int
	decay          float64
	q, k, bk, g    []float64 // [T, H, K]
	wv, z, want    []float64 // [T, HV, V]
	heads, k0, v0  int
	valueHeads     int
	norm           []float32
	scale, epsilon float64
}

// TestRecurrence holds the recurrence and its gated norm against float64, over
// documents of every length and decays from none to total; the chunked kernels
// where they run, and the simple one.
func TestRecurrence(t *testing.T) {
	needGPU(t)
	names := []string{"gva_128", "kla_128", "k64 v64", "k64 v128", "k128 v64", "k128 v256"}
	lens, decays := []int{1, 2, 15, 16, 17, 63, 64, 65, 127, 129, 300}, []float64{0, 0.05, 2, 60}
	if !emulated(t) {
		lens = append(lens, 1025)
	} else if testing.Short() {
		names, decays = names[:1], decays[2:3]
	}
	for _, name := range names {
		dir := folder(t, name)
		for _, of := range [][]options{{{}}, {{half: true}, {half: true, simple: true}}} { // by the operands' format
			var engines []bench
			for _, opt := range of {
				opt.poison, opt.stored = true, true
				engines = append(engines, bench{open(t, dir, Config{MaxTokens: 2048}, opt), t})
			}
			for _, decay := range decays {
				c := newRecurrenceCase(engines[0], lens, decay)
				for _, b := range engines {
					c.check(b)
				}
			}
		}
	}
}

func newRecurrenceCase(b bench, lens []int, decay float64) *recurrenceCase {
	m, total := b.model, 0
	for _, n := range lens {
		total += n
	}
	kd, vd := m.Heads*m.K, m.VHeads*m.V
	c := &recurrenceCase{lens: lens, decay: decay, heads: m.Heads, valueHeads: m.VHeads, k0: m.K, v0: m.V,
		norm: get[float32](b, b.w.layers[0].outNorm, m.V), scale: b.cfg.QueryScale, epsilon: m.NormEps,
		want: make([]float64, total*vd)}
	r := rand.New(rand.NewPCG(5, uint64(decay*100)))
	exact := func(f *format, v []float64) []float64 { return f.decode(f.encode(v)) }
	c.k = exact(b.operands(), normal(r, total*kd, 1/math.Sqrt(float64(m.K))))
	c.bk, c.g = make([]float64, total*kd), make([]float64, total*kd)
	for i := range c.bk {
		c.bk[i] = r.Float64() * c.k[i]
		c.g[i] = -decay * r.Float64()
	}
	c.bk, c.g = exact(b.operands(), c.bk), exact(fp16(), c.g)
	c.q, c.wv = exact(b.operands(), normal(r, total*kd, 1)), exact(b.operands(), normal(r, total*vd, 1))
	c.z = exact(activations(), normal(r, total*vd, 1.5))
	type part struct{ at, n, head int }
	var parts []part
	at := total
	for i := len(lens) - 1; i >= 0; i-- { // the longest are last, and start first
		at -= lens[i]
		for hv := range m.VHeads {
			parts = append(parts, part{at, lens[i], hv})
		}
	}
	inParallel(len(parts), func(i int) { c.reference(parts[i].at, parts[i].n, parts[i].head) })
	return c
}

// reference computes one value head of the document of n tokens at token at.
func (c *recurrenceCase) reference(at, n, hv int) {
	K, V := c.k0, c.v0
	s, u, o := make([]float64, K*V), make([]float64, V), make([]float64, V)
	for tok := at; tok < at+n; tok++ {
		kk, vv := (tok*c.heads+hv/(c.valueHeads/c.heads))*K, (tok*c.valueHeads+hv)*V
		copy(u, c.wv[vv:vv+V])
		clear(o)
		for i := range K {
			e, bi, row := math.Exp(c.g[kk+i]), c.bk[kk+i], s[i*V:][:len(u)]
			for v := range u {
				x := row[v] * e
				row[v] = x
				u[v] -= bi * x
			}
		}
		for i := range K {
			ki, qi, row := c.k[kk+i], c.scale*c.q[kk+i], s[i*V:][:len(u)]
			for v, x := range u {
				x = row[v] + ki*x
				row[v] = x
				o[v] += qi * x
			}
		}
		sum := 0.0
		for _, x := range o {
			sum += x * x
		}
		scale := 1 / math.Sqrt(sum/float64(V)+c.epsilon)
		for v, x := range o {
			c.want[vv+v] = x * scale * float64(c.norm[v]) * c.z[vv+v] * sig(c.z[vv+v])
		}
	}
}

// check runs an engine's kernels and compares.
func (c *recurrenceCase) check(b bench) {
	t := b.t
	t.Helper()
	in, total := &score.Batch{}, 0
	for _, n := range c.lens {
		in.Append(make([]int32, n), make([]int32, n), nil)
		total += n
	}
	in.Alloc()
	var d batch
	b.run(func() (err error) { d, err = b.upload(in); return err })
	f := b.operands()
	b.putAs(f, b.buf.q, c.q)
	b.putAs(f, b.buf.k, c.k)
	b.putAs(f, b.buf.bk, c.bk)
	b.putAs(f, b.buf.wv, c.wv)
	b.putAs(fp16(), b.buf.g, c.g)
	b.putActs(b.buf.z, c.z)
	b.run(func() error {
		if err := b.recur(0, d); err != nil {
			return err
		}
		return b.gateOutput(0, total)
	})
	square, size := 0.0, 0.0
	for i, got := range b.acts(b.buf.o, len(c.want)) {
		d := got - c.want[i]
		if math.IsNaN(d) || math.IsInf(d, 0) {
			t.Fatalf("decay %v, token %d, value %d: %v", c.decay, i/(c.valueHeads*c.v0), i%(c.valueHeads*c.v0), got)
		}
		square, size = square+d*d, size+c.want[i]*c.want[i]
	}
	limit := 8e-3
	if b.opt.half {
		limit = 1.5e-3
	}
	rel := math.Sqrt(square / size)
	t.Logf("%s K %d V %d, half %v, simple %v, decay %v: relative rms %.2e (limit %.1e)", b.dev, c.k0, c.v0, b.opt.half,
		b.opt.simple, c.decay, rel, limit)
	if !(rel <= limit) {
		t.Errorf("decay %v: relative rms %.2e, limit %.1e", c.decay, rel, limit)
	}
}

// TestProjectedRecurrence: the recurrence's output and states are the same to the last
// bit from projections as from what the gates make of them, where nothing decays, which
// is what the gates round. No product of the library runs, so compute-sanitizer's
// racecheck can follow it all (built with -DHOPPER_RACECHECK).
func TestProjectedRecurrence(t *testing.T) {
	needGPU(t)
	names := []string{"kla_128", "gva_128", "plain_128", "k64 v64", "k64 v128", "k128 v64", "k128 v256", "no conv",
		"two taps"}
	lens := []int{1, 2, 3, 15, 64, 65, 130, 70}
	if emulated(t) && testing.Short() {
		names = names[:2]
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, name)
			var out, states [2][]uint16
			for i, opt := range []options{{half: true}, {half: true, stored: true}} {
				opt.poison, opt.noTable, opt.untuned = true, true, true
				b := bench{open(t, dir, Config{MaxTokens: 384}, opt), t}
				in := &score.Batch{}
				for j, n := range lens {
					var s score.State
					if j == 5 { // carried: its first tokens are in the batch before
						var err error
						if s, err = b.NewState(); err != nil {
							t.Fatal(err)
						}
						defer s.Release()
					}
					in.Append(make([]int32, n), make([]int32, n), s)
				}
				in.Alloc()
				if err := b.pool.takeStates(in); err != nil {
					t.Fatal(err)
				}
				defer dropStates(in.States)
				r, m, total := rand.New(rand.NewPCG(6, 2)), b.model, len(in.IDs)
				p, still := normal(r, total*b.cols.total, 2), make([]float64, total*m.Heads*m.K)
				for j := range still {
					still[j] = -6e4
				}
				gate := normal(r, total*m.VHeads*m.V, 1.5)
				for range 2 { // the second time with the first's state and inputs
					b.putActs(b.buf.p, p)
					b.putActs(b.buf.f, still)
					b.putActs(b.buf.z, gate)
					b.run(func() error {
						d, err := b.upload(in)
						return errors.Join(err, b.embed(d), b.gates(0, d), b.recur(0, d), b.keepInputs(0, d),
							b.gateOutput(0, total))
					})
					out[i] = append(out[i], get[uint16](b, b.buf.o, total*m.VHeads*m.V)...)
				}
				st := in.States[5].(*state)
				states[i] = get[uint16](b, st.p, m.VHeads*m.K*m.V*2)
			}
			for _, x := range activations().decode(out[0]) {
				if math.IsNaN(x) {
					t.Fatal("an output is not written, or not a number")
				}
			}
			if !slices.Equal(out[0], out[1]) {
				t.Error("the outputs differ")
			}
			if !slices.Equal(states[0], states[1]) {
				t.Error("the states differ")
			}
		})
	}
}
