//go:build cuda

package gpu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gorgonia.org/cu"

	"surprisal/internal/failpoint"
	"surprisal/internal/score"
)

// Forward scores a batch: NLL [T] in nats and Top1 [T], which the caller has
// allocated, and the states after each sequence's last token. A non-finite value
// affects its own document only. ctx is checked before the batch and between layers;
// after an error the scores and the batch's states are undefined. After a device fault
// every further call fails.
func (e *Engine) Forward(ctx context.Context, b *score.Batch) error {
	e.lock.Lock()
	defer e.lock.Unlock()
	switch {
	case e.closed:
		return fmt.Errorf("forward: %w", ErrClosed)
	case e.broken != nil:
		return fmt.Errorf("forward on %s: the device failed before this batch: %w", e.dev, e.broken)
	}
	if err := b.Check(e.cfg.MaxTokens, e.model.VocabSize); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	if len(b.IDs) == 0 {
		return nil
	}
	if err := e.pool.takeStates(b); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	defer dropStates(b.States)
	e.batches++
	err := e.dev.do(func() error { return e.forward(ctx, b) })
	if err == nil {
		return nil
	}
	err = fmt.Errorf("forward on %s: batch %d (%d tokens, %d sequences): %w", e.dev, e.batches, len(b.IDs),
		len(b.States), err)
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		e.broken = err
	}
	return err
}

// batch is one forward pass's inputs on the device.
type batch struct {
	t, n, scored                int // tokens, sequences, rows with a target
	ids, targets, rows, seqlens cu.DevicePtr
	hist                        cu.DevicePtr // [N] pointers, 0 when no document is carried
	m                           int          // rows of matrix products: t, padded
}

// forward runs on the device's thread.
func (e *Engine) forward(ctx context.Context, b *score.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	start := time.Now()
	d, err := e.upload(b)
	b.Copied = time.Since(start)
	if err != nil {
		return fmt.Errorf("copy the batch to the device: %w", err)
	}
	if failpoint.Hit(failpoint.DeviceFault) != nil {
		d.ids = 16 // no address of the device: the context is lost with the kernel that reads it
	}
	e.mark("embed")
	if err := e.embed(d); err != nil {
		return fmt.Errorf("embedding: %w", err)
	}
	for l := range e.w.layers {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, e.dev.stream.Synchronize())
		}
		if err := e.layer(l, d); err != nil {
			return fmt.Errorf("layer %d: %w", l, err)
		}
	}
	if err := e.head(d); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	e.mark("end")
	if err := e.download(b, d); err != nil {
		return fmt.Errorf("copy the scores from the device: %w", err)
	}
	return nil
}

// upload copies the batch to the device and clears its fresh states.
func (e *Engine) upload(b *score.Batch) (batch, error) {
	d := batch{t: len(b.IDs), n: len(b.States), m: roundUp(len(b.IDs), rowTile)}
	m := metaWriter{host: e.host.meta.p, dev: e.buf.meta, room: e.host.meta.bytes}
	var ids, targets, rows, seqlens []int32
	ids, d.ids = m.ints(d.t)
	targets, d.targets = m.ints(d.t)
	rows, d.rows = m.ints(d.t)
	seqlens, d.seqlens = m.ints(d.n + 1)
	copy(ids, b.IDs)
	copy(targets, b.Targets)
	copy(seqlens, b.CuSeqlens)
	for i, g := range b.Targets {
		if g != score.NoTarget {
			rows[d.scored] = int32(i)
			d.scored++
		}
	}
	clear(rows[d.scored:])
	e.tables(b, &m)
	carried := false
	for _, s := range b.States {
		carried = carried || s != nil
	}
	if carried {
		var hist []uint64
		hist, d.hist = m.words(d.n)
		for i, s := range b.States {
			hist[i] = 0
			if s == nil {
				continue
			}
			st := s.(*state)
			hist[i] = uint64(st.p) + uint64(e.pool.inputs)
			if st.fresh {
				if err := cu.MemsetD8Async(st.p, 0, e.pool.bytes, e.dev.stream); err != nil {
					return d, err
				}
				st.fresh = false
			}
		}
	}
	return d, cu.MemcpyHtoDAsync(m.dev, m.host, int64(m.used), e.dev.stream)
}

func (e *Engine) embed(d batch) error {
	if err := e.embedRows(e.w.embedding, d.ids, d.t); err != nil {
		return err
	}
	return e.dev.launch(e.k.sequenceOf, [3]int{(d.t + 255) / 256, 1, 1}, 256, 0, uint64(e.buf.seqOf), uint64(d.seqlens),
		uint64(d.t), uint64(d.n))
}

// embedRows computes x [n, D] = wte[ids].
func (e *Engine) embedRows(wte, ids cu.DevicePtr, n int) error {
	grid := min((n*e.model.Width/8+255)/256, 16*e.dev.sms)
	return e.dev.launch(e.k.embed, [3]int{grid, 1, 1}, 256, 0, uint64(e.buf.x), uint64(wte), uint64(ids), uint64(n),
		uint64(e.model.Width))
}

// step is the launches of one family.
type step struct {
	family string
	run    func() error
}

// layer runs one layer.
func (e *Engine) layer(l int, d batch) error {
	y, b, g := &e.w.layers[l], &e.buf, &e.gemm
	rest := []step{
		{"product out", func() error { return e.product(g.out, d.m, operands{b.o, y.out, b.x, 0}) }},
		{"norm", func() error { return e.norm(y.norm2, 0, d.t) }},
		{"product up", func() error { return e.up(l, d.m) }},
		{"product down", func() error { return e.product(g.down, d.m, operands{b.a, y.down, b.x, 0}) }},
		{"bias", func() error { return e.addBias(y.downBias, d.t) }},
	}
	if e.int8.on {
		rest = []step{
			{"product out", func() error { return e.outInt8(l, d.t, d.m) }},
			{"norm", func() error { return e.normInt8(y.norm2, d.t) }},
			{"product up", func() error { return e.upInt8(l, d.m) }},
			{"product down", func() error { return e.downInt8(l, d.m) }},
		}
	}
	steps := []step{
		{"norm", func() error { return e.normIn(l, d.t) }},
		{"product in", func() error { return e.productIn(l, d.m) }},
	}
	if l == 0 && e.table != 0 {
		steps = []step{{"lookup", func() error { return e.gather(b.p, e.table, d.ids, d.t, e.cols.total) }}}
	}
	steps = append(steps, []step{
		{"product decay, gate", func() error {
			return errors.Join(
				e.product(g.decay, d.m, operands{b.p + cu.DevicePtr(2*e.cols.f), y.decay, b.f, 0}),
				e.product(g.gate, d.m, operands{b.p + cu.DevicePtr(2*e.cols.g), y.gate, b.z, y.gateBias}))
		}},
		{"gates", func() error { return e.gates(l, d) }},
		{"gdn2", func() error { return e.recur(l, d) }},
		{"gates", func() error { return e.keepInputs(l, d) }},
		{"gdn2 gate", func() error { return e.gateOutput(l, d.t) }},
	}...)
	for _, s := range append(steps, rest...) {
		e.mark(s.family)
		if err := s.run(); err != nil {
			return fmt.Errorf("%s: %w", s.family, err)
		}
	}
	return nil
}

// normIn and productIn are layer l's projections of the first n rows of x; m is n padded to rowTile.
func (e *Engine) normIn(l, n int) error {
	if e.int8.on {
		return e.normInt8(e.w.layers[l].norm1, n)
	}
	return e.norm(e.w.layers[l].norm1, 0, n)
}

func (e *Engine) productIn(l, m int) error {
	if e.int8.on {
		return e.inInt8(l, m)
	}
	return e.product(e.gemm.in, m, operands{e.buf.y, e.w.layers[l].in, e.buf.p, 0})
}

func (e *Engine) product(p *product, m int, o operands) error { return e.lt.run(p, m, o, e.dev.stream) }

// norm computes y [n, D] = rmsnorm(x) w of the given rows of x, or of its first n.
func (e *Engine) norm(w, rows cu.DevicePtr, n int) error {
	return e.dev.launch(e.k.norm, [3]int{(n + 7) / 8, 1, 1}, 256, 0,
		uint64(e.buf.y), uint64(e.buf.x), uint64(w), uint64(rows), uint64(n), uint64(e.model.Width),
		f32(e.model.NormEps))
}

// gateFlags are the gates' options, as in kernels/short_conv.cuh.
func (e *Engine) gateFlags() uint64 {
	c, flags := e.model, uint64(0)
	for i, on := range []bool{c.Kaczmarz, c.QKL2Norm, c.NegEigval} {
		if on {
			flags |= 1 << i
		}
	}
	return flags
}

// gates computes the recurrence's operands from the projections, unless prepare does so
// itself.
func (e *Engine) gates(l int, d batch) error {
	if e.rec.projected {
		return nil
	}
	const run, warps = 64, 4 // as in gates.cu
	c, b, y, flags := e.model, &e.buf, &e.w.layers[l], e.gateFlags()
	ch, vd := e.channels(), c.VHeads*c.V
	offset := e.historyOffset(l)
	heads := warps * 128 / c.K
	runs := (d.t + run - 1) / run
	err := e.dev.launch(e.k.key, [3]int{(c.Heads + heads - 1) / heads, runs, 1}, 32*warps, 0,
		uint64(b.q), uint64(b.k), uint64(b.bk), uint64(b.g), uint64(b.step), uint64(b.p), uint64(b.f),
		uint64(y.convW), uint64(y.convB), uint64(y.rate), uint64(y.dtBias), uint64(y.etaBias),
		uint64(b.seqOf), uint64(d.seqlens), uint64(d.hist), offset, uint64(d.t), uint64(c.Heads), uint64(ch),
		uint64(e.cols.b), uint64(e.cols.eta), uint64(e.cols.total), flags, f32(c.KaczmarzEps))
	if err != nil {
		return err
	}
	return e.dev.launch(e.k.value, [3]int{(vd + 256*warps - 1) / (256 * warps), runs, 1}, 32*warps, 0,
		uint64(b.wv), uint64(b.step), uint64(b.p), uint64(y.convW), uint64(y.convB),
		uint64(b.seqOf), uint64(d.seqlens), uint64(d.hist), offset, uint64(d.t), uint64(c.Heads), uint64(vd),
		uint64(vd/c.Heads), uint64(ch), uint64(e.cols.v), uint64(e.cols.w), uint64(e.cols.total), flags)
}

// historyOffset is the offset of a layer's convolution inputs among a state's, in elements.
func (e *Engine) historyOffset(l int) uint64 { return uint64(l * 3 * e.channels()) }

// keepInputs saves the inputs that the next batch's convolutions need of the carried
// sequences. It follows this batch's convolutions.
func (e *Engine) keepInputs(l int, d batch) error {
	if d.hist == 0 {
		return nil
	}
	ch := e.channels()
	return e.dev.launch(e.k.keepInputs, [3]int{d.n, (ch + 255) / 256, 1}, 256, 0,
		uint64(d.hist), e.historyOffset(l), uint64(e.buf.p), uint64(d.seqlens), uint64(ch), uint64(e.cols.total))
}

func (e *Engine) addBias(bias cu.DevicePtr, t int) error {
	if bias == 0 {
		return nil
	}
	return e.dev.launch(e.k.addBias, [3]int{16 * e.dev.sms, 1, 1}, 256, 0, uint64(e.buf.x), uint64(bias), uint64(t),
		uint64(e.model.Width))
}

// download waits for the batch and copies its scores.
func (e *Engine) download(b *score.Batch, d batch) error {
	p := e.host.result.p
	nll := viewOf[float32](pinned{p, 4 * d.t})
	flags := pinned{unsafeAdd(p, 4*e.rows), d.t}
	if err := errors.Join(
		cu.MemcpyDtoHAsync(p, e.buf.nll, int64(4*d.t), e.dev.stream),
		cu.MemcpyDtoHAsync(flags.p, e.buf.top1, int64(d.t), e.dev.stream),
		e.done.Record(e.dev.stream)); err != nil {
		return err
	}
	if err := e.done.Synchronize(); err != nil {
		return err
	}
	start := time.Now()
	defer func() { b.Copied += time.Since(start) }()
	top1 := viewOf[uint8](flags)
	for i, g := range b.Targets {
		b.NLL[i], b.Top1[i] = 0, false
		if g != score.NoTarget {
			b.NLL[i], b.Top1[i] = nll[i], top1[i] != 0
		}
	}
	return nil
}
