//go:build cuda

package gpu

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"gorgonia.org/cu"

	"surprisal/internal/score"
)

// bench is an engine whose kernels a test runs one at a time.
type bench struct {
	*Engine
	t *testing.T
}

// newBench takes a golden's checkpoint, or one of shapes.
func newBench(t *testing.T, name string, tokens int) bench {
	t.Helper()
	return bench{open(t, folder(t, name), Config{MaxTokens: tokens}, options{poison: true}), t}
}

// run runs f on the device's thread and waits for what it enqueued.
func (b bench) run(f func() error) {
	b.t.Helper()
	if err := b.dev.do(func() error {
		if err := f(); err != nil {
			return err
		}
		return b.dev.stream.Synchronize()
	}); err != nil {
		b.t.Fatal(err)
	}
}

func put[T any](b bench, p cu.DevicePtr, v []T) {
	b.t.Helper()
	if len(v) > 0 {
		b.run(func() error { return cu.MemcpyHtoD(p, unsafe.Pointer(&v[0]), int64(len(v))*int64(unsafe.Sizeof(v[0]))) })
	}
}

func get[T any](b bench, p cu.DevicePtr, n int) []T {
	b.t.Helper()
	v := make([]T, n)
	b.run(func() error { return cu.MemcpyDtoH(unsafe.Pointer(&v[0]), p, int64(n)*int64(unsafe.Sizeof(v[0]))) })
	return v
}

// acts are activations as they are stored.
func (b bench) putActs(p cu.DevicePtr, v []float64) []float64 {
	raw, exact := make([]uint16, len(v)), make([]float64, len(v))
	for i, x := range v {
		raw[i] = toHalf(x)
		exact[i] = fromHalf(raw[i])
	}
	put(b, p, raw)
	return exact
}

func (b bench) acts(p cu.DevicePtr, n int) []float64 {
	out := make([]float64, n)
	for i, x := range get[uint16](b, p, n) {
		out[i] = fromHalf(x)
	}
	return out
}

// fromHalf and toHalf are fp16's, or bf16's in a build for measurements.
func fromHalf(u uint16) float64 {
	if precision() == "bf16" {
		return float64(math.Float32frombits(uint32(u) << 16))
	}
	sign, e, m := 1.0, int(u>>10&31), float64(u&1023)
	if u>>15 == 1 {
		sign = -1
	}
	switch e {
	case 0:
		return sign * m * 0x1p-24
	case 31:
		if m != 0 {
			return math.NaN()
		}
		return sign * math.Inf(1)
	}
	return sign * (1024 + m) * math.Ldexp(1, e-25)
}

func toHalf(x float64) uint16 {
	best, lo, hi := uint16(0), 0, 0x7c00
	if precision() == "bf16" {
		hi = 0x7f80
	}
	a := math.Abs(x)
	for lo <= hi { // the largest that is not above
		mid := (lo + hi) / 2
		if fromHalf(uint16(mid)) <= a {
			best, lo = uint16(mid), mid+1
		} else {
			hi = mid - 1
		}
	}
	if up := fromHalf(best + 1); !math.IsInf(fromHalf(best), 0) && up-a < a-fromHalf(best) {
		best++
	}
	if math.Signbit(x) {
		best |= 0x8000
	}
	return best
}

// roundoff is half a unit in the last place of an activation, relative.
func roundoff() float64 {
	if precision() == "bf16" {
		return 0x1p-8
	}
	return 0x1p-11
}

func near(t *testing.T, what string, got, want []float64, rel, abs float64) {
	t.Helper()
	worst := 0.0
	for i := range want {
		d := math.Abs(got[i] - want[i])
		if !(d <= abs+rel*math.Abs(want[i])) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], want[i])
		}
		if want[i] != 0 {
			worst = math.Max(worst, d/(math.Abs(want[i])+abs))
		}
	}
	t.Logf("%s: worst error %.2g (limit %.2g)", what, worst, rel)
}

func normal(r *rand.Rand, n int, scale float64) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = scale * r.NormFloat64()
	}
	return v
}

func sig(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// TestNorm: rows of every magnitude, chosen rows, and a row of zeros.
func TestNorm(t *testing.T) {
	needGPU(t)
	names := []string{"kla_128", "wide"}
	if testing.Short() && emulated(t) {
		names = names[:1]
	}
	for _, name := range names {
		b := newBench(t, name, 256)
		d, r := b.model.Width, rand.New(rand.NewPCG(1, 1))
		const n = 200
		x := make([]float32, n*d)
		for i := range x {
			x[i] = float32(r.NormFloat64() * math.Pow(10, float64(i/d%9-4)))
		}
		clear(x[:d])
		put(b, b.buf.x, x)
		w := get[float32](b, b.w.lnF, d)
		rows := []int32{0, 199, 7, 7, 64, 63}
		put(b, b.buf.seqOf, rows)
		for _, chosen := range []bool{false, true} {
			at, count := cu.DevicePtr(0), n
			if chosen {
				at, count = b.buf.seqOf, len(rows)
			}
			b.run(func() error { return b.norm(b.w.lnF, at, count) })
			got := b.acts(b.buf.y, count*d)
			want := make([]float64, count*d)
			for i := range count {
				row := i
				if chosen {
					row = int(rows[i])
				}
				s := 0.0
				for _, v := range x[row*d:][:d] {
					s += float64(v) * float64(v)
				}
				scale := 1 / math.Sqrt(s/float64(d)+b.model.NormEps)
				for j := range d {
					want[i*d+j] = float64(x[row*d+j]) * scale * float64(w[j])
				}
			}
			near(t, name, got, want, roundoff()*1.01, 1e-7)
		}
	}
}

// TestSwiGLU, with and without biases, on large and tiny values.
func TestSwiGLU(t *testing.T) {
	needGPU(t)
	for _, name := range []string{"kla_128", "biases"} {
		b := newBench(t, name, 256)
		in, r := b.model.Inner, rand.New(rand.NewPCG(2, 1))
		const n = 129
		v := normal(r, n*2*in, 3)
		for i := range v {
			switch i % 17 {
			case 0:
				v[i] *= 1e-4
			case 1:
				v[i] *= 30
			}
		}
		h := b.putActs(b.buf.h, v)
		y := &b.w.layers[0]
		bias := make([]float32, 2*in)
		if y.upBias != 0 {
			bias = get[float32](b, y.upBias, 2*in)
		}
		b.run(func() error { return b.swiglu(y, n) })
		got, want := b.acts(b.buf.a, n*in), make([]float64, n*in)
		for i := range want {
			t, c := i/in, i%in
			u, g := h[t*2*in+c]+float64(bias[c]), h[t*2*in+in+c]+float64(bias[in+c])
			want[i] = u * sig(u) * g
		}
		near(t, name, got, want, roundoff()*1.1, 1e-6)
	}
}

// TestLoss: log-sum-exp and arg-max over rows with ties, huge and tiny logits, and
// NaN, which must show.
func TestLoss(t *testing.T) {
	needGPU(t)
	b := newBench(t, "kla_128", 128)
	vocab, ld, r := b.model.VocabSize, headColumns(b.model), rand.New(rand.NewPCG(3, 1))
	const n = 40
	logits := make([]float32, n*ld)
	for i := range logits {
		logits[i] = float32(3 * r.NormFloat64())
		if i%ld >= vocab {
			logits[i] = 1e30 // padding is never read
		}
	}
	rows, targets := make([]int32, n), make([]int32, n)
	for i := range n {
		rows[i], targets[i] = int32(n-1-i), int32(r.IntN(vocab))
	}
	row := func(i int) []float32 { return logits[i*ld:][:vocab] }
	target := func(i int) *int32 { return &targets[rows[i]] } // of the i-th row of logits
	for j := range row(0) {
		row(0)[j] = 0 // all the same: the lowest index wins
		row(1)[j] = -1e30
		row(2)[j] *= 1e4
	}
	*target(0) = 0
	row(3)[vocab-1], *target(3) = 1e4, int32(vocab-1)
	row(4)[5], row(4)[vocab-2], *target(4) = 50, 50, int32(vocab-2) // a tie lost
	row(5)[9], row(5)[10], *target(5) = 60, 60, 9                   // a tie won
	row(6)[7] = float32(math.NaN())
	row(7)[3] = float32(math.Inf(-1))
	put(b, b.buf.logits, logits)
	put(b, b.buf.seqOf, append(append([]int32(nil), rows...), targets...))
	b.run(func() error {
		return b.dev.launch(b.k.loss, [3]int{n, 1, 1}, 512, 0, uint64(b.buf.nll), uint64(b.buf.top1), uint64(b.buf.logits), uint64(b.buf.seqOf),
			uint64(b.buf.seqOf)+4*n, uint64(vocab), uint64(ld))
	})
	nll, top := get[float32](b, b.buf.nll, n), get[uint8](b, b.buf.top1, n)
	for i := range n {
		at, best, m := int(rows[i]), 0, math.Inf(-1)
		for j, v := range row(i) {
			if float64(v) > m {
				m, best = float64(v), j
			}
		}
		s := 0.0
		for _, v := range row(i) {
			s += math.Exp(float64(v) - m)
		}
		want := math.Log(s) + (m - float64(row(i)[*target(i)]))
		if i == 6 {
			if nll[at] == nll[at] || top[at] != 0 {
				t.Errorf("a row with NaN gives %v, %d", nll[at], top[at])
			}
			continue
		}
		if d := math.Abs(float64(nll[at]) - want); !(d <= 2e-6*(1+math.Abs(want))) {
			t.Errorf("row %d: %v, want %v", i, nll[at], want)
		}
		if (top[at] == 1) != (best == int(*target(i))) {
			t.Errorf("row %d: top-1 %d, the best is %d of %d", i, top[at], best, *target(i))
		}
	}
}

// TestGates holds the pass from projections to the recurrence's operands against
// float64, for every option, over documents that begin inside a warp's run.
func TestGates(t *testing.T) {
	needGPU(t)
	for _, name := range append(shapeNames(t), "kla_128", "plain_128", "gva_128", "strong_decay_128") {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, name, 256)
			lens := []int{1, 2, 3, 4, 33, 64, 31, 1, 50}
			total := 0
			batch := &score.Batch{}
			for _, n := range lens {
				batch.Append(make([]int32, n), make([]int32, n), nil)
				total += n
			}
			batch.Alloc()
			r := rand.New(rand.NewPCG(4, 1))
			var d batchOnDevice
			b.run(func() (err error) { d, err = b.upload(batch); return err })
			b.run(func() error { return b.embed(d) }) // seq_of
			c, col := b.model, b.cols
			kd, vd := c.Heads*c.K, c.VHeads*c.V
			p := b.putActs(b.buf.p, normal(r, total*col.total, 2))
			f := b.putActs(b.buf.f, normal(r, total*kd, 4))
			b.run(func() error { return b.gates(0, d) })
			y := &b.w.layers[0]
			ch := b.channels()
			convW := get[float32](b, y.convW, taps*ch)
			convB := make([]float32, ch)
			if y.convB != 0 {
				convB = get[float32](b, y.convB, ch)
			}
			rate, dt := get[float32](b, y.rate, c.Heads), get[float32](b, y.dtBias, kd)
			etaB := make([]float32, c.Heads)
			if y.etaBias != 0 {
				etaB = get[float32](b, y.etaBias, c.Heads)
			}
			q, k, bk, wv, g := make([]float64, total*kd), make([]float64, total*kd), make([]float64, total*kd), make([]float64, total*vd), make([]float64, total*kd)
			at := 0
			for _, n := range lens {
				for s := range n {
					tok := at + s
					conv := func(i int) float64 {
						a := float64(convB[i])
						for j := range taps {
							if u := s - taps + 1 + j; u >= 0 {
								a += float64(convW[j*ch+i]) * p[(at+u)*col.total+i]
							}
						}
						return a * sig(a)
					}
					for h := range c.Heads {
						qq, kk := 0.0, 0.0
						for i := range c.K {
							j := tok*kd + h*c.K + i
							q[j], k[j] = conv(h*c.K+i), conv(kd+h*c.K+i)
							qq, kk = qq+q[j]*q[j], kk+k[j]*k[j]
						}
						step := 1.0
						if c.Kaczmarz {
							step = sig(p[tok*col.total+col.eta+h]+float64(etaB[h])) / math.Max(kk, c.KaczmarzEps)
						}
						gate := func(x float64) float64 {
							if c.Kaczmarz {
								return math.Min(1, sig(x)*step)
							}
							return sig(x)
						}
						for i := range c.K {
							j := tok*kd + h*c.K + i
							if c.QKL2Norm {
								q[j] /= math.Sqrt(qq + 1e-6)
								k[j] /= math.Sqrt(kk + 1e-6)
							}
							e := gate(p[tok*col.total+col.b+h*c.K+i])
							if c.NegEigval {
								e *= 2
							}
							bk[j] = e * k[j]
							x := f[j] + float64(dt[h*c.K+i])
							g[j] = -float64(rate[h]) * (math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))))
						}
						per := vd / c.Heads
						for i := h * per; i < (h+1)*per; i++ {
							wv[tok*vd+i] = gate(p[tok*col.total+col.w+i]) * conv(2*kd+i)
						}
					}
				}
				at += n
			}
			near(t, "q", b.elements(b.buf.q, len(q)), q, b.elementRoundoff()*1.05, 2e-6)
			near(t, "k", b.elements(b.buf.k, len(k)), k, b.elementRoundoff()*1.05, 2e-6)
			near(t, "b k", b.elements(b.buf.bk, len(bk)), bk, b.elementRoundoff()*1.05, 2e-6)
			near(t, "w v", b.elements(b.buf.wv, len(wv)), wv, b.elementRoundoff()*1.05, 2e-6)
			got := make([]float64, len(g))
			for i, u := range get[uint16](b, b.buf.g, len(g)) {
				got[i] = halfOnly(u)
			}
			near(t, "g", got, g, 0x1p-11*1.05, 1e-7)
		})
	}
}

type batchOnDevice = batch

// elements are the recurrence's operands, fp16 or bf16 as the engine has them.
func (b bench) elements(p cu.DevicePtr, n int) []float64 {
	out := make([]float64, n)
	for i, u := range get[uint16](b, p, n) {
		if b.opt.half {
			out[i] = halfOnly(u)
		} else {
			out[i] = float64(math.Float32frombits(uint32(u) << 16))
		}
	}
	return out
}

func (b bench) elementRoundoff() float64 {
	if b.opt.half {
		return 0x1p-11
	}
	return 0x1p-8
}

func halfOnly(u uint16) float64 {
	sign, e, m := 1.0, int(u>>10&31), float64(u&1023)
	if u>>15 == 1 {
		sign = -1
	}
	switch e {
	case 0:
		return sign * m * 0x1p-24
	case 31:
		return sign * math.Inf(1)
	}
	return sign * (1024 + m) * math.Ldexp(1, e-25)
}

// TestRecurrence holds the recurrence and its gated norm against float64, over
// documents of every length and decays from none to total; the chunked kernels
// where they run, and the simple one.
func TestRecurrence(t *testing.T) {
	needGPU(t)
	names := []string{"gva_128", "kla_128", "k64 v64", "k64 v128", "k128 v64", "k128 v256"}
	if testing.Short() && emulated(t) {
		names = names[:1]
	}
	for _, name := range names {
		for _, opt := range []options{{}, {half: true}, {simple: true, half: true}} {
			opt.poison = true
			b := bench{open(t, folder(t, name), Config{MaxTokens: 2048}, opt), t}
			lens := []int{1, 2, 15, 16, 17, 63, 64, 65, 127, 129, 300}
			if !emulated(t) {
				lens = append(lens, 1025)
			}
			decays := []float64{0, 0.05, 2, 60}
			if emulated(t) && testing.Short() {
				decays = decays[2:3]
			}
			for _, decay := range decays {
				b.recurrence(lens, decay)
			}
		}
	}
}

func (b bench) recurrence(lens []int, decay float64) {
	t := b.t
	t.Helper()
	c := b.model
	kd, vd, group := c.Heads*c.K, c.VHeads*c.V, c.VHeads/c.Heads
	batch, total := &score.Batch{}, 0
	for _, n := range lens {
		batch.Append(make([]int32, n), make([]int32, n), nil)
		total += n
	}
	batch.Alloc()
	b.run(func() error { _, err := b.upload(batch); return err })
	r := rand.New(rand.NewPCG(5, uint64(decay*100)))
	element := func(p cu.DevicePtr, v []float64) []float64 {
		raw := make([]uint16, len(v))
		for i, x := range v {
			raw[i] = uint16(math.Float32bits(float32(x)) >> 16)
			if b.opt.half {
				raw[i] = toHalf(x)
			}
		}
		put(b, p, raw)
		return b.elements(p, len(v))
	}
	key := normal(r, total*kd, 1/math.Sqrt(float64(c.K)))
	bkv := make([]float64, len(key))
	k := element(b.buf.k, key)
	for i := range bkv {
		bkv[i] = r.Float64() * k[i]
	}
	q, bk := element(b.buf.q, normal(r, total*kd, 1)), element(b.buf.bk, bkv)
	wv := element(b.buf.wv, normal(r, total*vd, 1))
	g := make([]float64, total*kd)
	raw := make([]uint16, len(g))
	for i := range g {
		raw[i] = toHalf(-decay * r.Float64())
		g[i] = halfOnly(raw[i])
	}
	put(b, b.buf.g, raw)
	z := b.putActs(b.buf.z, normal(r, total*vd, 1.5))
	b.run(func() error {
		if err := b.recur(0); err != nil {
			return err
		}
		return b.gateOutput(0, total)
	})
	got, norm := b.acts(b.buf.o, total*vd), get[float32](b, b.w.layers[0].outNorm, c.V)
	square, size, at := 0.0, 0.0, 0
	s, u := make([]float64, c.K*c.V), make([]float64, c.V)
	o := make([]float64, c.V)
	for _, n := range lens {
		for hv := range c.VHeads {
			clear(s)
			for tok := at; tok < at+n; tok++ {
				kk, vv := tok*kd+hv/group*c.K, tok*vd+hv*c.V
				copy(u, wv[vv:vv+c.V])
				clear(o)
				for i := range c.K {
					e, bi := math.Exp(g[kk+i]), bk[kk+i]
					for v := range c.V {
						s[i*c.V+v] *= e
						u[v] -= bi * s[i*c.V+v]
					}
				}
				sum := 0.0
				for i := range c.K {
					for v := range c.V {
						s[i*c.V+v] += k[kk+i] * u[v]
						o[v] += b.cfg.QueryScale * q[kk+i] * s[i*c.V+v]
					}
				}
				for v := range c.V {
					sum += o[v] * o[v]
				}
				scale := 1 / math.Sqrt(sum/float64(c.V)+c.NormEps)
				for v := range c.V {
					want := o[v] * scale * float64(norm[v]) * z[vv+v] * sig(z[vv+v])
					d := got[vv+v] - want
					if math.IsNaN(d) || math.IsInf(d, 0) {
						t.Fatalf("decay %v, token %d, value %d: %v", decay, tok-at, v, got[vv+v])
					}
					square, size = square+d*d, size+want*want
				}
			}
		}
		at += n
	}
	limit := 8e-3
	if b.opt.half {
		limit = 1.5e-3
	}
	rel := math.Sqrt(square / size)
	t.Logf("%s K %d V %d, half %v, simple %v, decay %v: relative rms %.2e (limit %.1e)", b.dev, c.K, c.V, b.opt.half, b.opt.simple, decay, rel, limit)
	if !(rel <= limit) {
		t.Errorf("decay %v: relative rms %.2e, limit %.1e", decay, rel, limit)
	}
}
