package cpu

/*
#include "kernels.h"
*/
import "C"

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"surprisal/internal/model"
	"surprisal/internal/score"
)

const (
	// defaultMaxTokens is enough for a rate that larger batches don't better;
	// with many cores, each has defaultRows of a batch at least.
	defaultMaxTokens = 2048
	defaultRows      = 128
	maxMaxTokens     = 1 << 20
	// maxTile rows amortise the reading of a weight panel; their activations
	// stay in a second-level cache. Tiles are whole blocks of a product's rows.
	maxTile  = 240
	minTile  = 24
	tileStep = 24
	// vocabBlock logits of a tile's rows stay in a second-level cache.
	vocabBlock = 512
	maxThreads = 1024
)

// Config is what a caller may choose.
type Config struct {
	// QueryScale multiplies q in the recurrence; 0 is 1/sqrt(K), as trained.
	QueryScale float64
	// Threads is the number of cores used, 0 all that the process may use.
	Threads int
	// MaxTokens is a batch's token budget, a multiple of score.SplitMultiple; 0
	// is 2048, or 128 a thread. Work buffers take about 4 (6 H K + 2 HV V + D) bytes
	// of each: 76 KB for the 1.3 B model.
	MaxTokens int
	// Set is the instruction set; empty is SURPRISAL_CPU_SET's, or the fastest that the machine has.
	Set string
}

func (c Config) withDefaults(m model.Config) Config {
	if c.QueryScale == 0 {
		c.QueryScale = 1 / math.Sqrt(float64(m.K))
	}
	if c.Threads == 0 {
		c.Threads = runtime.GOMAXPROCS(0)
	}
	if c.MaxTokens == 0 {
		c.MaxTokens = max(defaultMaxTokens, roundUp(c.Threads*defaultRows, score.SplitMultiple))
	}
	return c
}

func (c Config) validate() error {
	switch {
	case math.IsNaN(c.QueryScale) || math.IsInf(c.QueryScale, 0) || c.QueryScale < 0:
		return fmt.Errorf("query scale %v is not a positive number", c.QueryScale)
	case c.Threads < 1 || c.Threads > maxThreads:
		return fmt.Errorf("%d threads is not within 1 and %d", c.Threads, maxThreads)
	case c.MaxTokens < score.SplitMultiple || c.MaxTokens > maxMaxTokens || c.MaxTokens%score.SplitMultiple != 0:
		return fmt.Errorf("a batch of %d tokens is not a multiple of %d up to %d",
			c.MaxTokens, score.SplitMultiple, maxMaxTokens)
	}
	return nil
}

// Engine runs the model on the CPU. Forward takes one batch at a time; NewState
// and Info may be called meanwhile.
type Engine struct {
	model  model.Config
	cfg    Config
	set    *C.sp_set
	device string
	mem    memory

	embedding []float32 // [VocabSize, D]
	layers    []layer
	lnF       []float32 // [D]
	head      []matrix  // [D, <= vocabBlock] each
	mixers    []C.sp_mixer
	cols      columns

	x       []float32 // [MaxTokens, ldx], the residual stream
	p       []float32 // [MaxTokens, ldp], the fused projections; then o
	q, k, e []float32 // [MaxTokens, ldk]
	zeros   []float32 // [2 H K + HV V], what the short convolutions read before a document
	targets []int32   // positions that have a target
	order   []int32   // sequences, longest first
	ldx     int
	ldp     int
	ldk     int
	ldWide  int
	workers []worker
	clock   stageClock

	lock   sync.Mutex // held by Forward and Close
	closed bool

	freeLock sync.Mutex
	free     []*state
}

// worker is one core's scratch.
type worker struct {
	norm   []float32 // [maxTile, ldx]
	wide   []float32 // [maxTile, ldWide]: gate, SwiGLU or logits
	slice  []float32 // [K + 3, slice], the walk's part of S
	loss   []C.sp_loss
	target []int32
	nll    []float32
	top1   []uint8
}

// ErrClosed is returned by Forward after Close.
var ErrClosed = errors.New("engine is closed")

// New reads the weights of a checkpoint with the shape mc into an engine. The
// checkpoint may be closed afterwards.
func New(ckpt *model.Checkpoint, mc model.Config, cfg Config) (*Engine, error) {
	largest := 0
	for _, s := range mc.Shapes() {
		largest = max(largest, s.Len())
	}
	var scratch memory
	src := &fromCheckpoint{ckpt: ckpt, scratch: scratch.floats(largest)}
	if scratch.err != nil {
		return nil, fmt.Errorf("start cpu engine: %w", scratch.err)
	}
	e, err := newEngine(src, mc, cfg)
	if ferr := scratch.free(); err == nil && ferr != nil {
		err = fmt.Errorf("start cpu engine: %w", errors.Join(ferr, e.Close()))
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

func newEngine(src source, mc model.Config, cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults(mc)
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("start cpu engine: %w", err)
	}
	if err := mc.Validate(); err != nil {
		return nil, fmt.Errorf("start cpu engine: %w", err)
	}
	set, err := setNamed(cfg.Set)
	if err != nil {
		return nil, fmt.Errorf("start cpu engine: %w", err)
	}
	e := &Engine{model: mc, cfg: cfg, set: set, device: cpuName(), cols: columnsOf(mc)}
	l := loader{src: src, mem: &e.mem, set: set}
	e.embedding = l.embedding(mc)
	for i := range mc.Layers {
		e.layers = append(e.layers, l.layer(mc, i))
	}
	e.lnF, e.head = l.vector("transformer.ln_f.weight", mc.Width), l.head(mc)
	e.plan()
	if err := cmp.Or(l.err, e.mem.err); err != nil {
		return nil, fmt.Errorf("start cpu engine: %w", errors.Join(err, e.mem.free()))
	}
	e.link()
	return e, nil
}

// plan allocates the work buffers.
func (e *Engine) plan() {
	c, t := e.model, e.cfg.MaxTokens
	kd, vd := c.Heads*c.K, c.VHeads*c.V
	e.ldx, e.ldp, e.ldk = offPower(c.Width), offPower(e.cols.total), offPower(kd)
	e.ldWide = offPower(max(2*c.Inner, vd, vocabBlock))
	e.x, e.p = e.mem.floats(t*e.ldx), e.mem.floats(t*e.ldp)
	e.q, e.k, e.e = e.mem.floats(t*e.ldk), e.mem.floats(t*e.ldk), e.mem.floats(t*e.ldk)
	e.zeros = e.mem.floats(e.channels())
	e.targets, e.order = allocOf[int32](&e.mem, t), make([]int32, 0, t)
	e.workers = make([]worker, e.cfg.Threads)
	for i := range e.workers {
		e.workers[i] = worker{
			norm: e.mem.floats(maxTile * e.ldx), wide: e.mem.floats(maxTile * e.ldWide),
			slice: e.mem.floats((c.K + 3) * int(e.set.slice)),
			loss:  allocOf[C.sp_loss](&e.mem, maxTile), target: allocOf[int32](&e.mem, maxTile),
			nll: e.mem.floats(maxTile), top1: allocOf[uint8](&e.mem, maxTile),
		}
	}
}

// link gives the C side each layer's view of weights and buffers.
func (e *Engine) link() {
	c := e.model
	flag := func(b bool) C.int32_t {
		if b {
			return 1
		}
		return 0
	}
	for i := range e.layers {
		y := &e.layers[i]
		e.mixers = append(e.mixers, C.sp_mixer{
			h: C.int64_t(c.Heads), hv: C.int64_t(c.VHeads), k: C.int64_t(c.K), v: C.int64_t(c.V),
			taps:  C.int64_t(taps(c)),
			b_col: C.int64_t(e.cols.b), w_col: C.int64_t(e.cols.w), eta_col: C.int64_t(e.cols.eta),
			ldp: C.int64_t(e.ldp), ldk: C.int64_t(e.ldk),
			l2norm: flag(c.QKL2Norm), kaczmarz: flag(c.Kaczmarz), neg_eigval: flag(c.NegEigval),
			query_scale: C.float(e.cfg.QueryScale), kaczmarz_eps: C.float(c.KaczmarzEps), norm_eps: C.float(c.NormEps),
			conv_weight: ptr(y.convWeight), conv_bias: ptr(y.convBias), decay: ptr(y.decayRate), dt_bias: ptr(y.dtBias),
			step_bias: ptr(y.stepBias), gate_bias: ptr(y.gateBias), o_norm: ptr(y.outNorm), zeros: ptr(e.zeros),
			p: ptr(e.p), q: ptr(e.q), kk: ptr(e.k), e: ptr(e.e),
		})
	}
}

// Info says what the engine is.
func (e *Engine) Info() score.EngineInfo {
	s, conv := e.stateFloats()
	return score.EngineInfo{
		Kind: score.EngineCPU, Precision: "fp32", Device: e.device, Set: C.GoString(e.set.name),
		MaxTokens: e.cfg.MaxTokens, VocabSize: e.model.VocabSize,
		StateBytes: int64(s+conv) * 4, Flops: e.model.Flops(),
	}
}

// Close gives the weights and buffers back, after a Forward under way. A second
// Close does nothing.
func (e *Engine) Close() error {
	e.lock.Lock()
	defer e.lock.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	if err := e.mem.free(); err != nil {
		return fmt.Errorf("close cpu engine: %w", err)
	}
	return nil
}

// offPower is a row stride for n floats: whole panels of a product and cache lines,
// and not a multiple of 1 KB, whose rows would share few sets of a cache.
func offPower(n int) int {
	if n = panelsOf(n); n%256 == 0 {
		n += 16
	}
	return n
}

func ptr(s []float32) *C.float {
	if len(s) == 0 {
		return nil
	}
	return (*C.float)(&s[0])
}

// allocOf gives n zeroed elements of a type without pointers.
func allocOf[T any](m *memory, n int) []T {
	var zero T
	b := m.alloc(int64(n) * int64(unsafe.Sizeof(zero)))
	if b == nil {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n)
}

// cpuName is the processor's name for people.
func cpuName() string {
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
				return strings.TrimSpace(v)
			}
		}
	}
	return runtime.GOOS + "/" + runtime.GOARCH
}
