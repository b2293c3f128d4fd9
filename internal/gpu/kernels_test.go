//go:build cuda

package gpu

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"gorgonia.org/cu"
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

// putActs stores activations and gives their exact values.
func (b bench) putActs(p cu.DevicePtr, v []float64) []float64 { return b.putAs(activations(), p, v) }

func (b bench) acts(p cu.DevicePtr, n int) []float64 {
	return activations().decode(get[uint16](b, p, n))
}

// putAs stores numbers of a format and gives their exact values.
func (b bench) putAs(f *format, p cu.DevicePtr, v []float64) []float64 {
	raw := f.encode(v)
	put(b, p, raw)
	return f.decode(raw)
}

func near(t *testing.T, what string, got, want []float64, rel, abs float64) {
	t.Helper()
	worst := 0.0
	for i := range want {
		d, limit := math.Abs(got[i]-want[i]), abs+rel*math.Abs(want[i])
		if !(d <= limit) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], want[i])
		}
		worst = math.Max(worst, d/limit)
	}
	t.Logf("%s: worst error %.2f of the limit, %.2g and %.2g of the value", what, worst, abs, rel)
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
			near(t, name, got, want, activations().roundoff()*1.01, 1e-7)
		}
	}
}

// TestGatherRows: rows that end within a warp's loads, in any order and repeated,
// and nothing beyond the last.
func TestGatherRows(t *testing.T) {
	needGPU(t)
	b, r := newBench(t, "kla_128", 64), rand.New(rand.NewPCG(5, 1))
	for _, c := range []struct{ vocab, ld, n int }{{1, 8, 1}, {3, 16, 7}, {40, 248, 8}, {40, 264, 9}, {1000, 2040, 33},
		{17, 2048, 64}, {17, 2056, 65}, {5, 10512, 15}} {
		m := memory{stream: b.dev.stream}
		var table, y, at cu.DevicePtr
		b.run(func() error {
			table, y = m.alloc("a table", int64(2*c.vocab*c.ld)), m.alloc("rows", int64(2*(c.n+1)*c.ld))
			at = m.alloc("ids", int64(4*c.n))
			return m.err
		})
		values, ids := make([]uint16, c.vocab*c.ld), make([]int32, c.n)
		for i := range values {
			values[i] = uint16(r.Uint32()) | 1
		}
		for i := range ids {
			ids[i] = int32(r.IntN(c.vocab))
		}
		ids[c.n-1] = int32(c.vocab - 1)
		put(b, table, values)
		put(b, at, ids)
		b.run(func() error { return b.gather(y, table, at, c.n, c.ld) })
		want := make([]uint16, 0, (c.n+1)*c.ld)
		for _, id := range ids {
			want = append(want, values[int(id)*c.ld:][:c.ld]...)
		}
		if got := get[uint16](b, y, (c.n+1)*c.ld); !slices.Equal(got, append(want, make([]uint16, c.ld)...)) {
			t.Errorf("%d rows of %d by %d are wrong", c.n, c.vocab, c.ld)
		}
		b.run(m.free)
	}
}

// TestTableRows: a table has, for every token, the bits of the projections of a
// batch where it stands elsewhere.
func TestTableRows(t *testing.T) {
	needGPU(t)
	for _, name := range []string{"kla_128", "odd widths"} {
		b := newBench(t, name, 128)
		if b.table == 0 {
			t.Fatal("there is no table")
		}
		y, c, n := &b.w.layers[0], b.cols.total, 200
		ids := rand.New(rand.NewPCG(6, 1)).Perm(b.model.VocabSize)
		for len(ids) > 0 {
			n = min(n, len(ids))
			part := make([]int32, n)
			for i := range part {
				part[i] = int32(ids[i])
			}
			ids = ids[n:]
			put(b, b.buf.meta, part)
			b.run(func() error {
				return errors.Join(b.embedRows(b.w.embedding, b.buf.meta, n), b.norm(y.norm1, 0, n),
					b.product(b.gemm.in, b.rows, operands{b.buf.y, y.in, b.buf.p, 0}))
			})
			want := get[uint16](b, b.buf.p, n*c)
			b.run(func() error {
				return errors.Join(cu.MemsetD8Async(b.buf.p, 0xff, int64(2*n*c), b.dev.stream),
					b.gather(b.buf.p, b.table, b.buf.meta, n, c))
			})
			if !slices.Equal(get[uint16](b, b.buf.p, n*c), want) {
				t.Fatalf("%s: other bits", name)
			}
		}
	}
}

// TestSwiGLU, with and without biases, on large and tiny values.
func TestSwiGLU(t *testing.T) {
	needGPU(t)
	for _, name := range []string{"kla_128", "biases"} {
		b := bench{open(t, folder(t, name), Config{MaxTokens: 256}, options{poison: true, simple: true}), t}
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
		b.run(func() error { return b.activate(y, n) })
		got, want := b.acts(b.buf.a, n*in), make([]float64, n*in)
		for i := range want {
			t, c := i/in, i%in
			at := t*2*in + c/8*16 + c%8
			u, g := h[at]+float64(bias[c]), h[at+8]+float64(bias[in+c])
			want[i] = u * sig(u) * g
		}
		near(t, name, got, want, activations().roundoff()*1.1, 1e-6)
	}
}

// TestLoss: log-sum-exp and arg-max over rows with ties, huge and tiny logits, and
// NaN, which must show.
func TestLoss(t *testing.T) {
	needGPU(t)
	b := bench{open(t, folder(t, "kla_128"), Config{MaxTokens: 128}, options{poison: true, simple: true}), t}
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
	put(b, b.hd.log, logits)
	put(b, b.buf.seqOf, append(append([]int32(nil), rows...), targets...))
	b.run(func() error { return b.lossOf(n, b.buf.seqOf, b.buf.seqOf+4*n) })
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

// TestSwiGLUProduct: the fused kernel against float64, with and without biases, a
// width that ends within a tile, and the same bits for a row wherever it lies.
func TestSwiGLUProduct(t *testing.T) {
	needGPU(t)
	for _, name := range []string{"kla_128", "biases"} {
		const n = 768
		b := newBench(t, name, n)
		if !b.swi.fused {
			if emulated(t) || b.dev.info.Major != 9 {
				t.Log("not on this GPU")
				return
			}
			t.Fatal("the fused kernel is not used")
		}
		w, in, r := b.model.Width, b.model.Inner, rand.New(rand.NewPCG(3, 1))
		v := normal(r, n*w, 2)
		copy(v[(n-1)*w:], v[5*w:6*w])
		x := b.putActs(b.buf.y, v)
		y := &b.w.layers[0]
		up := b.acts(y.up, 2*in*w)
		bias := make([]float32, 2*in)
		if y.upBias != 0 {
			bias = get[float32](b, y.upBias, 2*in)
		}
		b.run(func() error { return b.up(0, n) })
		got, want := b.acts(b.buf.a, n*in), make([]float64, n*in)
		inParallel(n, func(t int) {
			dot := func(row int) (s float64) {
				for k := range w {
					s += x[t*w+k] * up[row*w+k]
				}
				return s
			}
			for c := range in {
				u, g := dot(c/8*16+c%8)+float64(bias[c]), dot(c/8*16+8+c%8)+float64(bias[in+c])
				want[t*in+c] = u * sig(u) * g
			}
		})
		near(t, name, got, want, activations().roundoff()*1.2, 1e-5)
		for c := range in {
			if got[(n-1)*in+c] != got[5*in+c] {
				t.Fatalf("%s: the same row has other bits elsewhere, column %d", name, c)
			}
		}
	}
}

// TestHead: the kernel that keeps logits in registers against float64: ties, NaN,
// targets in every tile, a vocabulary that ends within a tile, and the same bits for a row
// wherever it lies.
func TestHead(t *testing.T) {
	needGPU(t)
	const n = 500
	b := newBench(t, "kla_128", 512)
	if !b.hd.fused {
		if emulated(t) || b.dev.info.Major != 9 {
			t.Log("not on this GPU")
			return
		}
		t.Fatal("the fused kernel is not used")
	}
	w, vocab, r := b.model.Width, b.model.VocabSize, rand.New(rand.NewPCG(4, 1))
	weights := normal(r, headColumns(b.model)*w, 0.3)
	copy(weights[7*w:8*w], weights[3*w:4*w])             // 3 and 7 always tie
	copy(weights[(vocab-1)*w:vocab*w], weights[5*w:6*w]) // and 5 and the last, tiles apart
	for i := range weights[vocab*w:] {
		weights[vocab*w+i] = 100 // padding is never read
	}
	weights = b.putActs(b.w.head, weights)
	v := normal(r, n*w, 1)
	copy(v[(n-1)*w:], v[8*w:9*w])
	for i, like := range []int{3, 7, 5, vocab - 1} { // rows 0 to 3 point along one of the ties
		for k := range w {
			v[i*w+k] = 8 * weights[like*w+k]
		}
	}
	v[4*w] = math.NaN()
	x := b.putActs(b.buf.y, v)
	rows, targets := make([]int32, n), make([]int32, n)
	for i := range n {
		rows[i], targets[n-1-i] = int32(n-1-i), int32(i*37%vocab)
	}
	for i, g := range []int{3, 7, 5, vocab - 1} {
		targets[rows[i]] = int32(g)
	}
	targets[rows[n-1]] = targets[rows[8]]
	put(b, b.buf.meta, append(append([]int32(nil), rows...), targets...))
	d := batch{scored: n, rows: b.buf.meta, targets: b.buf.meta + 4*n}
	b.run(func() error { return errors.Join(b.headProduct(512, d), b.joinTiles(d)) })
	nll, top := get[float32](b, b.buf.nll, n), get[uint8](b, b.buf.top1, n)
	inParallel(n, func(i int) {
		at := rows[i]
		if i == 4 {
			if nll[at] == nll[at] || top[at] != 0 {
				t.Errorf("a row with NaN gives %v, %d", nll[at], top[at])
			}
			return
		}
		l, best := make([]float64, vocab), 0
		for c := range l {
			for k := range w {
				l[c] += x[i*w+k] * weights[c*w+k]
			}
			if l[c] > l[best] {
				best = c
			}
		}
		s := 0.0
		for _, x := range l {
			s += math.Exp(x - l[best])
		}
		want := math.Log(s) + l[best] - l[targets[at]]
		if d := math.Abs(float64(nll[at]) - want); !(d <= 1e-5*(1+math.Abs(l[best]))) {
			t.Errorf("row %d: %v, want %v", i, nll[at], want)
		}
		if near := i >= 4 && math.Abs(l[targets[at]]-l[best]) < 1e-4; !near &&
			(top[at] == 1) != (best == int(targets[at])) {
			t.Errorf("row %d: top-1 %d, the best is %d of %d", i, top[at], best, targets[at])
		}
	})
	if nll[rows[8]] != nll[rows[n-1]] {
		t.Error("the same row has other bits elsewhere")
	}
}
