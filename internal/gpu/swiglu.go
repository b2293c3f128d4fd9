//go:build cuda

package gpu

import "gorgonia.org/cu"

// swiglu is the first half of a layer's MLP: on Hopper one kernel for product and
// activation, elsewhere a product and a kernel.
type swiglu struct {
	fused      bool
	product    cu.Function // fused
	activation cu.Function // not fused
	maps       cu.DevicePtr
}

const swigluShared = 231424

func (e *Engine) linkSwiGLU() error {
	var err error
	s, name := &e.swi, "swiglu_product"
	if e.model.Bias {
		name = "swiglu_product_bias"
	}
	if s.activation, err = e.mod.fn("swiglu"); err != nil {
		return err
	}
	if e.cfg.Precision == "int8" {
		s.fused = true // kernels of its own: see int8.go
		return nil
	}
	if s.fused = e.ownProducts(name); s.fused {
		s.product, err = e.mod.withShared(name, swigluShared)
	}
	return err
}

// swigluBytesPerToken is the memory that planSwiGLU allocates.
func (e *Engine) swigluBytesPerToken() int64 {
	if e.swi.fused {
		return 0
	}
	return 4 * int64(e.model.Inner)
}

func (e *Engine) planSwiGLU() error {
	s, c, b := &e.swi, e.model, &e.buf
	if e.int8.on {
		return nil
	}
	if !s.fused {
		b.h = e.mem.alloc("h", 4*int64(e.rows)*int64(c.Inner))
		return e.mem.err
	}
	var all []matrix
	for i := range e.w.layers {
		all = append(all, matrix{p: b.y, rows: e.rows, columns: c.Width, box: 128}, matrix{p: e.w.layers[i].up,
			rows: 2 * c.Inner, columns: c.Width, box: 128},
			matrix{p: b.a, rows: e.rows, columns: c.Inner, box: 64})
	}
	var err error
	s.maps, err = e.tensorMaps(all)
	return err
}

// up computes a = silu(y w1^T + b1) * (y w2^T + b2) of layer l, for a multiple of rowTile rows.
func (e *Engine) up(l, rows int) error {
	s, y, b, c := &e.swi, &e.w.layers[l], &e.buf, e.model
	if !s.fused {
		if err := e.product(e.gemm.up, rows, operands{b.y, y.up, b.h, 0}); err != nil {
			return err
		}
		e.mark("swiglu")
		return e.activate(y, rows)
	}
	return e.dev.launch(s.product, e.productGrid(rows, 2*c.Inner), productBlock, swigluShared,
		uint64(s.maps)+uint64(3*tensorMapBytes*l), uint64(y.upBias), uint64(rows/rowTile), uint64(2*c.Inner),
		uint64(c.Width))
}

// activate is the second half of up where it is not fused.
func (e *Engine) activate(y *layer, rows int) error {
	n := rows * e.model.Inner / 8
	return e.dev.launch(e.swi.activation, [3]int{(n + 511) / 512, 1, 1}, 256, 0, uint64(e.buf.a), uint64(e.buf.h),
		uint64(y.upBias), uint64(rows), uint64(e.model.Inner))
}
