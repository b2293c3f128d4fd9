//go:build cuda

package gpu

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"gorgonia.org/cu"

	"surprisal/internal/model"
	"surprisal/internal/score"
)

const (
	defaultMaxTokens = 32768
	minMaxTokens     = 1024 // the default is halved to this at least
	maxMaxTokens     = 1 << 18
	maxHeadsWidth    = 1 << 14 // so that 32 bits index an element of a batch
	rowTile          = 256     // rows of a matrix product are a multiple of this
	headRows         = 4096    // rows of a slice of the head
	taps             = 4       // of the short convolution; shorter ones have zeros in front
	initialStates    = 16      // recurrent states that New allocates: long documents side by side, of two batches
)

// Engine runs a model on one GPU. Forward runs one batch at a time; NewState and Info
// may be called during a Forward.
type Engine struct {
	model model.Config
	cfg   Config
	opt   options
	dev   *device
	mod   *modules
	lt    *blas
	mem   memory
	pool  statePool
	cols  columns
	w     weights
	rows  int          // MaxTokens, padded to rowTile
	table cu.DevicePtr // the first layer's projections of each token, [VocabSize, columns.total]; or 0

	gemm struct{ in, decay, gate, out, up, down, head *product }
	buf  buffers
	k    kernels
	rec  recurrence
	swi  swiglu
	int8 eightBit
	hd   head
	host struct{ meta, result pinned }
	done cu.Event

	lock    sync.Mutex // held by Forward and Close
	closed  bool
	broken  error // a device fault, after which no result can be trusted
	batches int64
	trace   *trace
}

// options exist for tests and measurements.
type options struct {
	// simple computes the recurrence token by token, as on a GPU without the chunked kernels.
	simple bool
	// half makes the recurrence's operands fp16 instead of bf16.
	half bool
	// poison fills buffers with NaN instead of zeros.
	poison bool
	// noTable omits the first layer's table.
	noTable bool
	// stored makes the recurrence read its operands from memory, where the gates' kernels
	// write them, instead of computing them from the projections.
	stored bool
	// untuned takes the library's first algorithm for each product without running any, for
	// tests of our kernels alone. It requires noTable.
	untuned bool
	// stage is the size of the pieces in which weights are copied, in bytes; 0 for the default.
	stage int
}

// buffers are the work buffers on the device, of the type act of kernels/act.cuh where
// no other is named. E is the type of the recurrence's operands.
type buffers struct {
	x     cu.DevicePtr // [rows, D] fp32, the residual stream
	y     cu.DevicePtr // [rows, D], normed
	p     cu.DevicePtr // [rows, columns.total], the fused projections
	f     cu.DevicePtr // [rows, H K], f_proj.1's output
	z     cu.DevicePtr // [rows, HV V], the output gate
	q     cu.DevicePtr // [rows, H K] E; q to step are 0 where the recurrence computes its operands
	k     cu.DevicePtr // [rows, H K] E
	bk    cu.DevicePtr // [rows, H K] E
	g     cu.DevicePtr // [rows, H K] fp16
	wv    cu.DevicePtr // [rows, HV V] E
	step  cu.DevicePtr // [rows, H] fp32
	o     cu.DevicePtr // [rows, HV V], the mixer's output before o_proj
	h     cu.DevicePtr // [rows, 2 I]; 0 where SwiGLU is one kernel
	a     cu.DevicePtr // [rows, I]
	nll   cu.DevicePtr // [rows] fp32
	top1  cu.DevicePtr // [rows] bytes
	seqOf cu.DevicePtr // [rows] int32
	meta  cu.DevicePtr // a batch's ids, bounds and tables, as in host.meta
}

// kernels are the ones that this model's shape needs.
type kernels struct {
	embed, gather, norm, addBias, sequenceOf, key, value, keepInputs cu.Function
}

// New loads a checkpoint of shape mc onto a GPU and allocates all the memory that
// scoring needs. The checkpoint may be closed afterwards.
func New(ckpt *model.Checkpoint, mc model.Config, cfg Config) (*Engine, error) {
	return newEngine(ckpt, mc, cfg, options{half: true})
}

func newEngine(ckpt *model.Checkpoint, mc model.Config, cfg Config, opt options) (*Engine, error) {
	cfg = cfg.withDefaults(mc)
	if err := errors.Join(cfg.validate(), mc.Validate(), supported(mc)); err != nil {
		return nil, fmt.Errorf("start CUDA engine: %w", err)
	}
	start := time.Now()
	dev, err := openDevice(cfg.Device)
	if err != nil {
		return nil, fmt.Errorf("start CUDA engine: %w", err)
	}
	e := &Engine{model: mc, cfg: cfg, opt: opt, dev: dev, cols: columnsOf(mc)}
	cfg.Took("device", time.Since(start))
	if err := dev.do(func() error { return e.start(ckpt) }); err != nil {
		return nil, fmt.Errorf("start CUDA engine on %s: %w", dev, errors.Join(err, e.Close()))
	}
	return e, nil
}

// start loads the model and allocates everything, on the device's thread.
func (e *Engine) start(ckpt *model.Checkpoint) error {
	e.mem.stream = e.dev.stream
	last := time.Now()
	took := func(phase string) {
		now := time.Now()
		e.cfg.Took(phase, now.Sub(last))
		last = now
	}
	// cuBLASLt is large and not needed before tuneAll, so it loads beside the weights.
	opened := make(chan error, 1)
	go func() {
		opened <- e.dev.elsewhere(func() (err error) {
			e.lt, err = openBLAS()
			return err
		})
	}()
	err := e.link()
	took("kernels")
	if err == nil {
		err = e.load(ckpt)
	}
	took("weights")
	if err = errors.Join(err, <-opened); err != nil {
		return err
	}
	took("blas")
	if e.opt.poison {
		e.mem.poison = func(p cu.DevicePtr, n int64) error { return cu.MemsetD8Async(p, 0xff, n, e.dev.stream) }
	}
	if err = e.plan(); err != nil {
		return err
	}
	took("buffers")
	if err = e.tuneAll(); err != nil {
		return err
	}
	if err = e.dev.stream.Synchronize(); err != nil {
		return err
	}
	took("tune")
	if err = e.buildTable(); err != nil {
		return fmt.Errorf("compute the first layer's projections: %w", err)
	}
	err = e.clearBuffers()
	took("table")
	return err
}

// load chooses the budget and copies the weights.
func (e *Engine) load(ckpt *model.Checkpoint) error {
	if err := e.chooseBudget(); err != nil {
		return err
	}
	largest := 0
	for _, s := range e.model.Shapes() {
		largest = max(largest, s.Len())
	}
	l, err := e.newLoader(ckpt, largest)
	if err != nil {
		return err
	}
	e.w = l.model(e.model)
	err = l.finish()
	l.close()
	return err
}

// link loads the kernels and describes the matrix products.
func (e *Engine) link() error {
	var err error
	if e.mod, err = loadModules(); err != nil {
		return err
	}
	c, suffix := e.model, "bf16"
	if e.opt.half {
		suffix = "f16"
	}
	norm := "rms_norm_wide"
	for _, n := range []int{4, 8, 18, 32} {
		if c.Width <= 128*n {
			norm = fmt.Sprintf("rms_norm_%d", n)
			break
		}
	}
	for _, k := range []struct {
		fn   *cu.Function
		name string
	}{
		{&e.k.embed, "embed"},
		{&e.k.gather, "gather_rows"},
		{&e.k.norm, norm},
		{&e.k.addBias, "add_bias"},
		{&e.k.sequenceOf, "sequence_of"},
		{&e.k.key, fmt.Sprintf("gates_key_k%d_%s", c.K, suffix)},
		{&e.k.value, "gates_value_" + suffix},
		{&e.k.keepInputs, "keep_inputs"},
	} {
		if *k.fn, err = e.mod.fn(k.name); err != nil {
			return err
		}
	}
	kd, vd := c.Heads*c.K, c.VHeads*c.V
	g := &e.gemm
	g.in = newProduct("in", e.cols.total, c.Width, c.Width, e.cols.total, toAct)
	g.decay = newProduct("decay", kd, c.V, e.cols.total, kd, toAct)
	g.gate = newProduct("gate", vd, c.V, e.cols.total, vd, toActBias)
	g.out = newProduct("out", c.Width, vd, vd, c.Width, addFP32)
	g.up = newProduct("up", 2*c.Inner, c.Width, c.Width, 2*c.Inner, toAct)
	g.down = newProduct("down", c.Width, c.Inner, c.Inner, c.Width, addFP32)
	g.head = newProduct("head", headColumns(c), c.Width, c.Width, headColumns(c), toFP32)
	if err := errors.Join(e.linkSwiGLU(), e.linkHead(), e.linkInt8()); err != nil {
		return err
	}
	return e.linkRecurrence(suffix)
}

// bytesPerToken and fixedBytes are the device memory that plan allocates.
func (e *Engine) bytesPerToken() int64 {
	c := e.model
	kd, vd := int64(c.Heads*c.K), int64(c.VHeads*c.V)
	d, i := int64(c.Width), int64(c.Inner)
	n := 4*d + 2*d + 2*int64(e.cols.total) + 2*kd + 2*vd + 2*vd + 2*i + 4 + 1 + 4
	if !e.rec.projected {
		n += 8*kd + 2*vd + 4*int64(c.Heads)
	}
	return n + metaBytesPerToken + e.recurrenceBytesPerToken() + e.swigluBytesPerToken() + e.int8BytesPerToken()
}

func (e *Engine) fixedBytes(rows int) int64 {
	return e.headBytes(rows) + initialStates*e.stateBytes() + e.recurrenceFixedBytes() + 64<<20
}

func (e *Engine) weightBytes() int64 { return 2*e.model.Params() + 4<<20 }

// need is the device memory for a budget of tokens, without the first layer's table.
func (e *Engine) need(tokens int) int64 {
	rows := roundUp(tokens, rowTile)
	// While algorithms are chosen, the largest product's output exists twice.
	spare := int64(commonRows) * int64(max(e.cols.total*2, 4*e.model.Inner, 4*headColumns(e.model)))
	return e.weightBytes() + e.fixedBytes(rows) + spare + int64(rows)*e.bytesPerToken()
}

// chooseBudget sets MaxTokens or returns an error if the given one does not fit. It
// omits the first layer's table if that does not fit as well.
func (e *Engine) chooseBudget() error {
	free, _, err := cu.MemInfo()
	if err != nil {
		return fmt.Errorf("query free memory: %w", err)
	}
	if t := e.cfg.MaxTokens; t != 0 {
		if n := e.need(t); n > free {
			return fmt.Errorf("a batch of %d tokens %w: it needs about %d MiB, %d MiB are free; "+
				"use a smaller --batch-tokens", t, errBudget, n>>20, free>>20)
		}
	} else {
		for t = defaultMaxTokens; e.need(t) > free; t /= 2 {
			if t == minMaxTokens {
				return fmt.Errorf("the model with a batch of %d tokens %w: it needs about %d MiB, %d MiB are free",
					t, errBudget, e.need(t)>>20, free>>20)
			}
		}
		e.cfg.MaxTokens = t
	}
	if n := e.tableBytes(); n > free/4 || e.need(e.cfg.MaxTokens)+n > free {
		e.opt.noTable = true
	}
	e.rows = roundUp(e.cfg.MaxTokens, rowTile)
	if int64(e.rows)*int64(e.model.Inner/8) > math.MaxUint32 {
		return fmt.Errorf("%w a batch of %d tokens for an inner width of %d: use a smaller --batch-tokens",
			ErrUnsupported, e.cfg.MaxTokens, e.model.Inner)
	}
	return nil
}

// plan allocates the work buffers.
func (e *Engine) plan() error {
	c, n, m, b := e.model, int64(e.rows), &e.mem, &e.buf
	kd, vd := int64(c.Heads*c.K), int64(c.VHeads*c.V)
	b.x, b.y = m.alloc("x", 4*n*int64(c.Width)), m.alloc("y", 2*n*int64(c.Width))
	b.p = m.alloc("projections", 2*n*int64(e.cols.total))
	b.f, b.z = m.alloc("decay", 2*n*kd), m.alloc("gate", 2*n*vd)
	b.o = m.alloc("o", 2*n*vd)
	if !e.rec.projected {
		b.q, b.k, b.bk, b.g = m.alloc("q", 2*n*kd), m.alloc("k", 2*n*kd), m.alloc("bk", 2*n*kd), m.alloc("g", 2*n*kd)
		b.wv, b.step = m.alloc("wv", 2*n*vd), m.alloc("step", 4*n*int64(c.Heads))
	}
	if !e.int8.on {
		b.a = m.alloc("a", 2*n*int64(c.Inner))
	}
	b.nll, b.top1, b.seqOf = m.alloc("nll", 4*n), m.alloc("top1", n), m.alloc("seq_of", 4*n)
	b.meta = m.alloc("tables", n*metaBytesPerToken+metaFixedBytes)
	e.planRecurrence()
	if m.err != nil {
		return m.err
	}
	err := errors.Join(e.planSwiGLU(), e.planHead(), e.planInt8())
	if err != nil {
		return err
	}
	if e.host.meta, err = newPinned(e.rows*metaBytesPerToken + metaFixedBytes); err != nil {
		return err
	}
	if e.host.result, err = newPinned(5 * e.rows); err != nil {
		return err
	}
	if e.done, err = cu.MakeEvent(cu.BlockingSyncEvent | cu.DisableTiming); err != nil {
		return err
	}
	e.pool = statePool{dev: e.dev, bytes: e.stateBytes(), inputs: e.stateInputs()}
	for range initialStates {
		if err := e.pool.grow(); err != nil {
			return fmt.Errorf("allocate %d MiB of GPU memory for states: %w", initialStates*e.pool.bytes>>20, err)
		}
	}
	return nil
}

// clearBuffers clears what the choice of algorithms left in the buffers, or poisons them.
func (e *Engine) clearBuffers() error {
	fill := byte(0)
	if e.opt.poison {
		fill = 0xff
	}
	n, c := int64(e.rows), e.model
	for _, b := range []struct {
		p     cu.DevicePtr
		bytes int64
	}{
		{e.buf.x, 4 * n * int64(c.Width)}, {e.buf.y, 2 * n * int64(c.Width)}, {e.buf.p, 2 * n * int64(e.cols.total)},
		{e.buf.o, 2 * n * int64(c.VHeads*c.V)}, {e.buf.h, 4 * n * int64(c.Inner)}, {e.buf.a, 2 * n * int64(c.Inner)},
		{e.buf.f, 2 * n * int64(c.Heads*c.K)}, {e.buf.z, 2 * n * int64(c.VHeads*c.V)},
	} {
		if b.p == 0 {
			continue
		}
		if err := cu.MemsetD8Async(b.p, fill, b.bytes, e.dev.stream); err != nil {
			return fmt.Errorf("clear work buffers: %w", err)
		}
	}
	return e.dev.stream.Synchronize()
}

// stateInputs is the offset of a state's convolution inputs, in bytes.
func (e *Engine) stateInputs() int64 {
	c := e.model
	return 4 * int64(c.Layers) * int64(c.VHeads) * int64(c.K) * int64(c.V)
}

func (e *Engine) stateBytes() int64 {
	c := e.model
	return e.stateInputs() + 2*int64(c.Layers)*3*int64(e.channels())
}

// channels is the number of columns that pass through the short convolutions.
func (e *Engine) channels() int { return 2*e.model.Heads*e.model.K + e.model.VHeads*e.model.V }

// NewState returns the state of a document's start. It may be called during a Forward.
func (e *Engine) NewState() (score.State, error) {
	st, err := e.pool.take()
	if err != nil {
		return nil, err
	}
	return st, nil
}

// Info describes the engine.
func (e *Engine) Info() score.EngineInfo {
	return score.EngineInfo{
		Kind:      score.EngineCUDA,
		Precision: e.precision(),
		Device:    e.dev.info.Name,
		MaxTokens: e.cfg.MaxTokens,
		VocabSize: e.model.VocabSize,
		// A document's walk is one block per slice of its value heads, and an SM runs one block.
		MinDocuments: e.dev.sms * e.rec.slice / (e.model.VHeads * e.model.V),
		StateBytes:   e.pool.bytes,
		Flops:        e.model.Flops(),
	}
}

// precision names the type of the layers' large products' operands.
func (e *Engine) precision() string {
	if e.int8.on {
		return e.cfg.Precision
	}
	return precision()
}

// Close waits for a running Forward and frees the GPU's memory. A second Close does
// nothing.
func (e *Engine) Close() error {
	e.lock.Lock()
	defer e.lock.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	err := e.dev.do(func() error {
		if e.broken == nil {
			_ = e.dev.stream.Synchronize()
		}
		e.lt.close()
		err := errors.Join(e.pool.close(), e.mem.free(), e.mod.unload())
		e.host.meta.free()
		e.host.result.free()
		if e.done != (cu.Event{}) {
			_ = cu.DestroyEvent(&e.done)
		}
		return err
	})
	e.dev.close()
	if err != nil && e.broken == nil {
		return fmt.Errorf("close CUDA engine on %s: %w", e.dev, err)
	}
	return nil
}

func f32(x float64) uint64 { return uint64(math.Float32bits(float32(x))) }
