//go:build cuda

package gpu

import (
	"fmt"

	"gorgonia.org/cu"
)

// eightBit is the layers' large products with int8 operands: kernels on the tensor
// cores where they run, else plain ones with the same sums. The operands are
// quantized where they are made, with a scale for each row, or for each 128 columns
// of a row where the product sums by blocks.
type eightBit struct {
	on, fused               bool
	norm, blocks            cu.Function
	plain, swiglu, residual cu.Function
	x, xs                   cu.DevicePtr // normed rows [rows, D], scales [rows]
	o, os                   cu.DevicePtr // the mixer's output [rows, HV V], scales [HV V / 128, rows]
	a, as                   cu.DevicePtr // the MLP's inner rows [rows, I], scales [I / 128, rows]
	maps                    cu.DevicePtr // four pairs for each layer: in, out, up, down
}

// quantized is a weight matrix on the device: s8 rows in a product's order, and a
// scale for each.
type quantized struct{ w, scales cu.DevicePtr }

// The order of a weight matrix's rows, as in kernels/eight_bit_quantize.cuh.
const (
	plainOrder = iota
	residualOrder
	swigluOrder
)

const (
	int8Block  = 128 // columns that share a scale
	int8Shared = 208128
)

// supportsInt8 refuses models that the int8 kernels were not written for.
func (e *Engine) supportsInt8() error {
	c := e.model
	switch {
	case precision() != "fp16":
		return fmt.Errorf("%w int8 in a build for %s", ErrUnsupported, precision())
	case c.Bias:
		return fmt.Errorf("%w int8 for MLPs with biases: use fp16", ErrUnsupported)
	case c.Width%16 != 0 || c.Inner%16 != 0:
		return fmt.Errorf("%w int8 for widths that are not multiples of 16 (%d, %d): use fp16", ErrUnsupported,
			c.Width, c.Inner)
	case c.VHeads*c.V%int8Block != 0:
		return fmt.Errorf("%w int8 for value heads of %d channels together, not a multiple of %d: use fp16",
			ErrUnsupported, c.VHeads*c.V, int8Block)
	}
	return nil
}

func (e *Engine) linkInt8() error {
	q := &e.int8
	if q.on = e.cfg.Precision == "int8"; !q.on {
		return nil
	}
	if err := e.supportsInt8(); err != nil {
		return err
	}
	norm := "rms_norm_s8_wide"
	for _, n := range []int{4, 8, 18, 32} {
		if e.model.Width <= 128*n {
			norm = fmt.Sprintf("rms_norm_s8_%d", n)
			break
		}
	}
	q.fused = e.ownProducts("int8_plain")
	names, shared := [3]string{"s8_plain", "s8_swiglu", "s8_residual"}, 0
	if q.fused {
		names, shared = [3]string{"int8_plain", "int8_swiglu", "int8_residual"}, int8Shared
	}
	for _, k := range []struct {
		fn     *cu.Function
		name   string
		shared int
	}{
		{&q.norm, norm, 0}, {&q.blocks, "quantize_blocks", 0}, {&q.plain, names[0], shared}, {&q.swiglu, names[1],
			shared}, {&q.residual, names[2], shared},
	} {
		var err error
		if *k.fn, err = e.mod.withShared(k.name, k.shared); err != nil {
			return err
		}
	}
	return nil
}

// int8BytesPerToken is what planInt8 takes.
func (e *Engine) int8BytesPerToken() int64 {
	if !e.int8.on {
		return 0
	}
	d, vd, i := int64(e.model.Width), int64(e.model.VHeads*e.model.V), int64(e.model.Inner)
	return d + 4 + vd + 4*vd/int8Block + i + 4*((i+int8Block-1)/int8Block)
}

func (e *Engine) planInt8() error {
	q, c, m, n := &e.int8, e.model, &e.mem, int64(e.rows)
	if !q.on {
		return nil
	}
	vd, blocks := int64(c.VHeads*c.V), int64((c.Inner+int8Block-1)/int8Block)
	q.x, q.xs = m.alloc("int8 rows", n*int64(c.Width)), m.alloc("int8 scales", 4*n)
	q.o, q.os = m.alloc("int8 o", n*vd), m.alloc("int8 scales", 4*n*vd/int8Block)
	q.a, q.as = m.alloc("int8 a", n*int64(c.Inner)), m.alloc("int8 scales", 4*n*blocks)
	if m.err != nil || !q.fused {
		return m.err
	}
	var all []matrix
	pair := func(x cu.DevicePtr, w quantized, rows, columns int) {
		all = append(all, matrix{x, e.rows, columns, 128, true}, matrix{w.w, roundUp(rows, 256), columns, 128, true})
	}
	for i := range e.w.layers {
		y := &e.w.layers[i].int8
		pair(q.x, y.in, e.cols.total, c.Width)
		pair(q.o, y.out, c.Width, int(vd))
		pair(q.x, y.up, 2*roundUp(c.Inner, int8Block), c.Width)
		pair(q.a, y.down, c.Width, c.Inner)
	}
	var err error
	q.maps, err = e.tensorMaps(all)
	return err
}

// mapsOf is where the tensor maps of a layer's product begin; which: 0 in, 1 out, 2 up, 3 down.
func (q *eightBit) mapsOf(l, which int) uint64 {
	return uint64(q.maps) + uint64((8*l+2*which)*tensorMapBytes)
}

// normInt8 is x = rmsnorm of the first n rows, quantized.
func (e *Engine) normInt8(w cu.DevicePtr, n int) error {
	q := &e.int8
	return e.dev.launch(q.norm, [3]int{(n + 7) / 8, 1, 1}, 256, 0, uint64(q.x), uint64(q.xs), uint64(e.buf.x),
		uint64(w), uint64(n), uint64(e.model.Width), f32(e.model.NormEps))
}

// inInt8 is p = x in^T of layer l; rows, here and below, a multiple of rowTile.
func (e *Engine) inInt8(l, rows int) error {
	q, y, n, k := &e.int8, &e.w.layers[l].int8.in, e.cols.total, e.model.Width
	if q.fused {
		return e.dev.launch(q.plain, e.productGrid(rows, n), productBlock, int8Shared, q.mapsOf(l, 0),
			uint64(e.buf.p), uint64(q.xs), uint64(y.scales), uint64(rows/rowTile),
			uint64(n), uint64(k))
	}
	return e.dev.launch(q.plain, elements(rows, n), 256, 0, uint64(e.buf.p), uint64(q.x), uint64(q.xs), uint64(y.w),
		uint64(y.scales), uint64(rows), uint64(n), uint64(k))
}

// upInt8 is a = silu(x w1^T) x w2^T of layer l, quantized.
func (e *Engine) upInt8(l, rows int) error {
	q, y, i, k := &e.int8, &e.w.layers[l].int8.up, e.model.Inner, e.model.Width
	if q.fused {
		return e.dev.launch(q.swiglu, e.productGrid(rows, 2*i), productBlock, int8Shared, q.mapsOf(l, 2),
			uint64(q.a), uint64(q.as), uint64(q.xs), uint64(y.scales),
			uint64(rows/rowTile), uint64(i), uint64(k), uint64(e.rows))
	}
	warps := rows * ((i + int8Block - 1) / int8Block)
	return e.dev.launch(q.swiglu, [3]int{(warps + 7) / 8, 1, 1}, 256, 0, uint64(q.a), uint64(q.as), uint64(q.x),
		uint64(q.xs), uint64(y.w), uint64(y.scales), uint64(rows),
		uint64(i), uint64(k), uint64(e.rows))
}

// outInt8 quantizes the mixer's output, t rows of it, and adds o_proj of it to the
// residual stream.
func (e *Engine) outInt8(l, t, rows int) error {
	q, vd := &e.int8, e.model.VHeads*e.model.V
	if err := e.dev.launch(q.blocks, [3]int{(t*(vd/int8Block) + 15) / 16, 1, 1}, 256, 0, uint64(q.o), uint64(q.os),
		uint64(e.buf.o), uint64(t), uint64(vd), uint64(e.rows)); err != nil {
		return err
	}
	return e.addInt8(q.mapsOf(l, 1), q.o, q.os, e.w.layers[l].int8.out, rows, vd)
}

// downInt8 adds w3 of a to the residual stream.
func (e *Engine) downInt8(l, rows int) error {
	q := &e.int8
	return e.addInt8(q.mapsOf(l, 3), q.a, q.as, e.w.layers[l].int8.down, rows, e.model.Inner)
}

func (e *Engine) addInt8(maps uint64, x, xs cu.DevicePtr, w quantized, rows, k int) error {
	q, n := &e.int8, e.model.Width
	if q.fused {
		return e.dev.launch(q.residual, e.productGrid(rows, n), productBlock, int8Shared, maps, uint64(e.buf.x),
			uint64(xs), uint64(w.scales), uint64(rows/rowTile), uint64(n),
			uint64(k), uint64(e.rows))
	}
	return e.dev.launch(q.residual, elements(rows, n), 256, 0, uint64(e.buf.x), uint64(x), uint64(xs), uint64(w.w),
		uint64(w.scales), uint64(rows), uint64(n), uint64(k),
		uint64(e.rows))
}

// elements is a grid of blocks of 256 threads, one for each element.
func elements(rows, columns int) [3]int { return [3]int{(rows*columns + 255) / 256, 1, 1} }

// quantize gives a matrix [rows, k] in int8. fill writes it as fp16, rows in their
// natural order, to where it is told.
func (l *loader) quantize(what string, rows, k, order int, fill func(dst cu.DevicePtr)) quantized {
	padded := roundUp(rows, 256)
	if order == swigluOrder {
		padded = 2 * roundUp(rows/2, int8Block)
	}
	q := quantized{l.mem.alloc(what, int64(padded*k)), l.mem.alloc("scales of "+what, int64(4*padded))}
	if !l.check(nil) || !l.check(cu.MemsetD8Async(l.whole, 0, int64(2*rows*k), l.stream)) {
		return q
	}
	fill(l.whole)
	if l.check(nil) {
		l.check(l.dev.launch(l.rows, [3]int{(rows + 7) / 8, 1, 1}, 256, 0, uint64(q.w), uint64(q.scales),
			uint64(l.whole), uint64(rows), uint64(k), uint64(order)))
	}
	return q
}
