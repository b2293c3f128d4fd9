//go:build cuda

package gpu

import (
	"fmt"
	"math"
	"unsafe"

	"gorgonia.org/cu"

	"surprisal/internal/model"
)

// layer is one block's weights on the device.
type layer struct {
	norm1, norm2 cu.DevicePtr // [D] fp32
	in           cu.DevicePtr // [columns.total, D], the fused projections of the mixer's input
	decay        cu.DevicePtr // f_proj.1 [H K, V]
	gate         cu.DevicePtr // g_proj.1 [HV V, V]
	out          cu.DevicePtr // o_proj [D, HV V]
	up           cu.DevicePtr // w1 and w2 [2 I, D], interleaved by eight rows
	down         cu.DevicePtr // w3 [D, I]
	upBias       cu.DevicePtr // [2 I] fp32, or 0
	downBias     cu.DevicePtr // [D] fp32, or 0
	convW        cu.DevicePtr // [taps, 2 H K + HV V] fp32
	convB        cu.DevicePtr // [2 H K + HV V] fp32, or 0
	rate         cu.DevicePtr // exp(A_log) [H] fp32
	dtBias       cu.DevicePtr // [H K] fp32
	etaBias      cu.DevicePtr // [H] fp32, or 0
	gateBias     cu.DevicePtr // [HV V]
	outNorm      cu.DevicePtr // [V] fp32
	// Instead of in, out, up and down, in int8.
	int8 struct{ in, out, up, down quantized }
}

// weights is a model on the device.
type weights struct {
	embedding cu.DevicePtr // [VocabSize, D]
	head      cu.DevicePtr // [headColumns, D]
	lnF       cu.DevicePtr // [D] fp32
	layers    []layer
}

// loader copies tensors to the device through two pinned stages, one of which is filled
// while the other is copied, and narrows matrices there. After the first error it does
// nothing.
type loader struct {
	ckpt   *model.Checkpoint
	mem    *memory
	dev    *device
	stream cu.Stream
	stage  [2]pinned
	copied [2]cu.Event
	turn   int
	own    memory                      // freed by close
	raw    cu.DevicePtr                // a stage's bytes
	bad    cu.DevicePtr                // 8 bytes: number of weights out of the type's range
	narrow map[model.DType]cu.Function // from each type that tensors are copied in
	whole  cu.DevicePtr                // a matrix in fp16, to be quantized; 0: none is
	rows   cu.Function                 // quantizes it
	err    error
}

// stageBytes is small, because pinning memory is slow, and enough for copies at full
// speed.
const stageBytes = 32 << 20

func (e *Engine) newLoader(ckpt *model.Checkpoint, largest int) (*loader, error) {
	stream := e.dev.stream
	l := &loader{ckpt: ckpt, mem: &e.mem, dev: e.dev, stream: stream, own: memory{stream: stream},
		narrow: map[model.DType]cu.Function{}}
	var err error
	for _, t := range []model.DType{model.Float32, model.Float16, model.BFloat16} {
		if l.narrow[t], err = e.mod.fn("narrow_" + t.String()); err != nil {
			return nil, err
		}
	}
	size := min(stageBytes, 4*largest)
	if e.opt.stage != 0 {
		size = e.opt.stage
	}
	l.raw, l.bad = l.own.alloc("weights being loaded", int64(size)), l.own.alloc("a counter", 8)
	if e.int8.on {
		c := e.model
		l.whole = l.own.alloc("a matrix being quantized", 2*int64(c.Width*max(e.cols.total, 2*c.Inner, c.VHeads*c.V)))
		if l.rows, err = e.mod.fn("quantize_rows"); err != nil {
			l.close()
			return nil, err
		}
	}
	if l.own.err != nil {
		l.close()
		return nil, l.own.err
	}
	for i := range l.stage {
		if l.stage[i], err = newPinned(size); err != nil {
			l.close()
			return nil, err
		}
		if l.copied[i], err = cu.MakeEvent(cu.DisableTiming); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

// finish waits for the copies and returns the first error.
func (l *loader) finish() error {
	if l.check(nil) && l.check(l.stream.Synchronize()) {
		var n uint64
		if l.check(cu.MemcpyDtoH(unsafe.Pointer(&n), l.bad, 8)) && n > 0 {
			l.err = fmt.Errorf("%w weights beyond %s's range (%d of them): use --engine cpu", ErrUnsupported,
				precision(), n)
		}
	}
	return l.err
}

func (l *loader) close() {
	_ = l.stream.Synchronize()
	_ = l.own.free()
	for i := range l.stage {
		l.stage[i].free()
		if l.copied[i] != (cu.Event{}) {
			_ = cu.DestroyEvent(&l.copied[i])
		}
	}
}

func (l *loader) check(err error) bool {
	if l.err == nil {
		l.err = err
	}
	if l.err == nil {
		l.err = l.mem.err
	}
	return l.err == nil
}

// next returns a stage whose last copy is done.
func (l *loader) next() (pinned, cu.Event) {
	l.turn ^= 1
	l.check(l.copied[l.turn].Synchronize())
	return l.stage[l.turn], l.copied[l.turn]
}

// float32 reads a whole tensor.
func (l *loader) float32(name string, dst []float32) bool {
	t, err := l.ckpt.Tensor(name)
	return l.check(err) && l.check(t.Float32(dst))
}

// matrix copies the first n of a tensor's size elements to dst, in the type of matrix
// products.
func (l *loader) matrix(name string, dst cu.DevicePtr, size, n int) { l.spread(name, dst, size, n, 0) }

// spread is matrix with a gap of run elements after every run elements. A tensor that is
// stored in order is copied to the device in the file's type, another one as fp32.
func (l *loader) spread(name string, dst cu.DevicePtr, size, n, run int) {
	if !l.check(nil) {
		return
	}
	t, err := l.ckpt.Tensor(name)
	if err == nil && t.Len() != size {
		err = fmt.Errorf("tensor %s has %d elements, not %d", name, t.Len(), size)
	}
	if !l.check(err) {
		return
	}
	kind, fill := t.DType, t.Copy
	if !t.Stored() {
		wide := make([]float32, size)
		if !l.check(t.Float32(wide)) {
			return
		}
		kind, fill = model.Float32, func(dst []byte, first int) error {
			copy(unsafe.Slice((*float32)(unsafe.Pointer(&dst[0])), len(dst)/4), wide[first:])
			return nil
		}
	}
	width := kind.Size()
	for first, some := 0, 0; first < size; first += some {
		s, ev := l.next()
		some = min(size-first, s.bytes/width)
		if !l.check(nil) || !l.check(fill(viewOf[byte](s)[:some*width], first)) {
			return
		}
		wanted := min(some, n-first)
		if wanted <= 0 {
			continue // padding: only checked
		}
		if !l.check(cu.MemcpyHtoDAsync(l.raw, s.p, int64(wanted*width), l.stream)) || !l.check(ev.Record(l.stream)) {
			return
		}
		err := l.dev.launch(l.narrow[kind], [3]int{8 * l.dev.sms, 1, 1}, 256, 0,
			uint64(dst), uint64(l.raw), uint64(first), uint64(wanted), uint64(run), uint64(l.bad))
		if !l.check(err) {
			return
		}
	}
}

// vector copies a tensor, after change, to the device as fp32.
func (l *loader) vector(name string, n int, change func([]float32)) cu.DevicePtr {
	p := l.mem.alloc(name, int64(4*n))
	if !l.check(nil) {
		return 0
	}
	v := make([]float32, n)
	if !l.float32(name, v) {
		return 0
	}
	if change != nil {
		change(v)
	}
	l.upload(p, v)
	return p
}

// upload copies fp32 values through a stage.
func (l *loader) upload(p cu.DevicePtr, v []float32) {
	for len(v) > 0 && l.check(nil) {
		s, ev := l.next()
		n := copy(viewOf[float32](s), v)
		if l.check(cu.MemcpyHtoDAsync(p, s.p, int64(4*n), l.stream)) {
			l.check(ev.Record(l.stream))
		}
		p, v = p+cu.DevicePtr(4*n), v[n:]
	}
}

func (l *loader) linear(name string, rows, cols int) cu.DevicePtr {
	p := l.mem.alloc(name, int64(2*rows*cols))
	l.matrix(name, p, rows*cols, rows*cols)
	return p
}

// headColumns is the vocabulary, padded for the matrix product.
func headColumns(c model.Config) int { return roundUp(c.VocabSize, 16) }

func (l *loader) model(c model.Config) weights {
	w := weights{
		embedding: l.mem.alloc("the embedding", int64(2*c.VocabSize*c.Width)),
		head:      l.mem.alloc("the head", int64(2*headColumns(c)*c.Width)),
	}
	l.matrix("transformer.wte.weight", w.embedding, c.PaddedVocabSize*c.Width, c.VocabSize*c.Width)
	l.matrix("lm_head.weight", w.head, c.PaddedVocabSize*c.Width, c.VocabSize*c.Width)
	w.lnF = l.vector("transformer.ln_f.weight", c.Width, nil)
	for i := range c.Layers {
		w.layers = append(w.layers, l.layer(c, i))
	}
	return w
}

func (l *loader) layer(c model.Config, i int) layer {
	p := fmt.Sprintf("transformer.h.%d.", i)
	a, m := p+"attn.", p+"mlp.swiglu."
	col, kd, vd := columnsOf(c), c.Heads*c.K, c.VHeads*c.V
	y := layer{norm1: l.vector(p+"norm_1.weight", c.Width, nil), norm2: l.vector(p+"norm_2.weight", c.Width, nil)}
	parts := []struct {
		name     string
		col, out int
	}{
		{"q_proj", col.q, kd}, {"k_proj", col.k, kd}, {"v_proj", col.v, vd}, {"b_proj", col.b, kd},
		{"w_proj", col.w, vd}, {"f_proj.0", col.f, c.V}, {"g_proj.0", col.g, c.V},
	}
	if c.Kaczmarz {
		parts = append(parts, struct {
			name     string
			col, out int
		}{"eta_proj", col.eta, c.Heads})
		y.etaBias = l.vector(a+"eta_proj.bias", c.Heads, nil)
	}
	in := func(dst cu.DevicePtr) {
		for _, t := range parts {
			l.matrix(a+t.name+".weight", dst+cu.DevicePtr(2*t.col*c.Width), t.out*c.Width, t.out*c.Width)
		}
	}
	if l.whole == 0 {
		y.in = l.mem.alloc("projections", int64(2*col.total*c.Width))
		in(y.in)
		y.out = l.linear(a+"o_proj.weight", c.Width, vd)
		y.up = l.mem.alloc("w1 and w2", int64(4*c.Inner*c.Width))
		l.spread(m+"w1.weight", y.up, c.Inner*c.Width, c.Inner*c.Width, 8*c.Width)
		l.spread(m+"w2.weight", y.up+cu.DevicePtr(2*8*c.Width), c.Inner*c.Width, c.Inner*c.Width, 8*c.Width)
		y.down = l.linear(m+"w3.weight", c.Width, c.Inner)
	} else {
		one := func(name string, size int) func(cu.DevicePtr) {
			return func(dst cu.DevicePtr) { l.matrix(name, dst, size, size) }
		}
		q := &y.int8
		q.in = l.quantize("projections", col.total, c.Width, plainOrder, in)
		q.out = l.quantize("o_proj", c.Width, vd, residualOrder, one(a+"o_proj.weight", c.Width*vd))
		q.up = l.quantize("w1 and w2", 2*c.Inner, c.Width, swigluOrder, func(dst cu.DevicePtr) {
			one(m+"w1.weight", c.Inner*c.Width)(dst)
			one(m+"w2.weight", c.Inner*c.Width)(dst + cu.DevicePtr(2*c.Inner*c.Width))
		})
		q.down = l.quantize("w3", c.Width, c.Inner, residualOrder, one(m+"w3.weight", c.Width*c.Inner))
	}
	y.decay, y.gate = l.linear(a+"f_proj.1.weight", kd, c.V), l.linear(a+"g_proj.1.weight", vd, c.V)
	if c.Bias {
		b1, b2 := make([]float32, c.Inner), make([]float32, c.Inner)
		l.float32(m+"w1.bias", b1)
		l.float32(m+"w2.bias", b2)
		y.upBias = l.mem.alloc("biases", int64(8*c.Inner))
		l.upload(y.upBias, append(b1, b2...))
		y.downBias = l.vector(m+"w3.bias", c.Width, nil)
	}
	l.conv(c, a, &y)
	y.rate = l.vector(a+"A_log", c.Heads, func(v []float32) {
		for i := range v {
			v[i] = float32(math.Exp(float64(v[i])))
		}
	})
	y.dtBias, y.gateBias = l.vector(a+"dt_bias", kd, nil), l.linear(a+"g_proj.1.bias", 1, vd)
	y.outNorm = l.vector(a+"o_norm.weight", c.V, nil)
	return y
}

// conv reads the three short convolutions as one over the columns q|k|v, with zeros
// before the taps of shorter ones. A model without convolutions gets the taps 0, 0, 0, 1.
func (l *loader) conv(c model.Config, a string, y *layer) {
	kd, vd := c.Heads*c.K, c.VHeads*c.V
	channels := 2*kd + vd
	w, b := make([]float32, taps*channels), make([]float32, channels)
	y.convW = l.mem.alloc("convolutions", int64(4*len(w)))
	if !c.ShortConv {
		for i := range channels {
			w[(taps-1)*channels+i] = 1
		}
		l.upload(y.convW, w)
		return
	}
	for _, part := range []struct {
		name     string
		col, out int
	}{{"q", 0, kd}, {"k", kd, kd}, {"v", 2 * kd, vd}} {
		v := make([]float32, part.out*c.ConvSize)
		if !l.float32(a+part.name+"_conv1d.weight", v) {
			return
		}
		for i, x := range v {
			w[(taps-c.ConvSize+i%c.ConvSize)*channels+part.col+i/c.ConvSize] = x
		}
		if c.ConvBias {
			l.float32(a+part.name+"_conv1d.bias", b[part.col:][:part.out])
		}
	}
	l.upload(y.convW, w)
	if c.ConvBias {
		y.convB = l.mem.alloc("convolutions", int64(4*channels))
		l.upload(y.convB, b)
	}
}
