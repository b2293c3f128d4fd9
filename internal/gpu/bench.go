//go:build cuda

package gpu

import (
	"context"
	"errors"
	"fmt"

	"gorgonia.org/cu"

	"surprisal/internal/model"
	"surprisal/internal/score"
)

// Family is the time of one kind of kernels in a forward pass.
type Family struct {
	Name string  `json:"name"`
	MS   float64 `json:"ms"`
}

// NewStored is New with the recurrence's operands computed by separate kernels and read
// from memory, to time the recurrence alone.
func NewStored(ckpt *model.Checkpoint, mc model.Config, cfg Config) (*Engine, error) {
	return newEngine(ckpt, mc, cfg, options{half: true, stored: true})
}

// Profile runs a batch and returns the device time of each family, in order of first
// launch. The events around every launch cost about 1 %.
func (e *Engine) Profile(ctx context.Context, b *score.Batch) ([]Family, error) {
	e.lock.Lock()
	e.trace = &trace{}
	e.lock.Unlock()
	err := e.Forward(ctx, b)
	e.lock.Lock()
	t := e.trace
	e.trace = nil
	e.lock.Unlock()
	var out []Family
	return out, errors.Join(err, e.dev.do(func() error {
		defer t.free()
		names, ms, err := t.sum()
		for _, n := range names {
			out = append(out, Family{n, ms[n]})
		}
		return err
	}))
}

// Product is one of a forward pass's matrix products.
type Product struct {
	Name   string  `json:"name"`
	N      int     `json:"n"`
	K      int     `json:"k"`
	Rows   int     `json:"rows"`
	Times  int     `json:"times"` // in a pass of MaxTokens scored tokens
	MS     float64 `json:"ms"`    // of one
	TFLOPS float64 `json:"tflops"`
	How    string  `json:"algorithm"`
}

// Products times the matrix products of a full batch alone, each by the algorithm
// that Forward uses, on random operands: the limit for a forward pass. The first
// layer's product, which a table replaces, is counted. Weights are not changed.
func (e *Engine) Products() ([]Product, error) {
	e.lock.Lock()
	defer e.lock.Unlock()
	if e.closed || e.broken != nil {
		return nil, errors.Join(ErrClosed, e.broken)
	}
	y, g, l := &e.w.layers[0], e.gemm, e.model.Layers
	heads, slices := min(e.rows, headRows), (e.cfg.MaxTokens+headRows-1)/headRows
	if e.hd.fused {
		heads, slices = e.rows, 1
	}
	var out []Product
	err := e.dev.do(func() error {
		for _, t := range []struct {
			p           *product
			rows, times int
			o           operands
		}{
			{g.in, e.rows, l, operands{e.buf.y, y.in, e.buf.p, 0}},
			{g.decay, e.rows, l, operands{e.buf.p + cu.DevicePtr(2*e.cols.f), y.decay, e.buf.f, 0}},
			{g.gate, e.rows, l, operands{e.buf.p + cu.DevicePtr(2*e.cols.g), y.gate, e.buf.z, y.gateBias}},
			{g.out, e.rows, l, operands{e.buf.o, y.out, e.buf.x, 0}},
			{g.up, e.rows, l, operands{e.buf.y, y.up, e.buf.h, 0}},
			{g.down, e.rows, l, operands{e.buf.a, y.down, e.buf.x, 0}},
			{g.head, heads, slices, operands{e.buf.y, e.w.head, e.hd.log, 0}},
		} {
			from, count := t.o.x, int64(t.rows-1)*int64(t.p.c.ldx)+int64(t.p.c.k)
			switch {
			case e.int8.on && (t.p == g.in || t.p == g.up):
				from, count = e.int8.x, count/2 // pairs of bytes
			case e.int8.on && t.p == g.down:
				from, count = e.int8.a, count/2
			}
			if err := e.fillRandom(from, count, 2); err != nil {
				return err
			}
			const each = 8 // back to back, as clocks settle under load
			run := func() error { return e.lt.run(t.p, t.rows, t.o, e.dev.stream) }
			switch {
			case e.int8.on && t.p == g.in:
				run, t.p.what = func() error { return e.inInt8(0, t.rows) }, "int8"
			case e.int8.on && t.p == g.out:
				run, t.p.what = func() error { return e.outInt8(0, t.rows, t.rows) },
					"int8, with its operand's quantization"
			case e.int8.on && t.p == g.up:
				run, t.p.what = func() error { return e.upInt8(0, t.rows) }, "int8, with its activation"
			case e.int8.on && t.p == g.down:
				run, t.p.what = func() error { return e.downInt8(0, t.rows) }, "int8"
			case t.p == g.up && e.swi.fused:
				run, t.p.what = func() error { return e.up(0, t.rows) }, "with its activation"
			case t.p == g.head && e.hd.fused:
				run, t.p.what = func() error { return e.headProduct(t.rows, batch{}) }, "with its reduction"
			}
			ms, err := e.time(func() error {
				for range each {
					if err := run(); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("product %s: %w", t.p.name, err)
			}
			ms /= each
			n, k := int(t.p.c.n), int(t.p.c.k)
			out = append(out, Product{t.p.name, n, k, t.rows, t.times, ms,
				2 * float64(t.rows) * float64(n) * float64(k) / ms / 1e9, t.p.what})
		}
		return nil
	})
	return out, err
}

// Bytes is the device memory that the engine has allocated.
func (e *Engine) Bytes() int64 { return e.mem.total }
