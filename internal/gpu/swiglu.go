//go:build cuda

package gpu

/*
#include <cuda.h>

// A map of a matrix [rows, columns] of activations with rows ld elements apart, in
// boxes of box_rows x 64, as kernels/swiglu_product.cu wants it.
static int sp_tensor_map(void *map, unsigned long long p, int bf16, unsigned long long rows, unsigned long long columns, unsigned box_rows) {
  const cuuint64_t dims[2] = {columns, rows}, strides[1] = {2 * columns};
  const cuuint32_t box[2] = {64, box_rows}, steps[2] = {1, 1};
  return cuTensorMapEncodeTiled((CUtensorMap *)map, bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, (void *)p, dims, strides, box, steps,
                                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"
)

// swiglu is the up half of a layer's MLP: one kernel for product and activation
// where there is one (compute capability 9.0), else a product and a kernel.
type swiglu struct {
	fused      bool
	product    cu.Function // fused
	activation cu.Function // not fused
	maps       cu.DevicePtr
}

const (
	swigluShared  = 230528
	tensorMapSize = 128
)

func (e *Engine) linkSwiGLU() error {
	var err error
	s, name := &e.swi, "swiglu_product"
	if e.model.Bias {
		name = "swiglu_product_bias"
	}
	if s.activation, err = e.mod.fn("swiglu"); err != nil {
		return err
	}
	s.fused = !e.opt.simple && e.dev.info.Major == 9 && e.mod.has(name)
	if s.fused {
		s.product, err = e.mod.withShared(name, swigluShared)
	}
	return err
}

// planSwiGLU lays out the maps of every layer's operands, once the buffers are there.
func (e *Engine) planSwiGLU() error {
	s, c, b := &e.swi, e.model, &e.buf
	if !s.fused {
		b.h = e.mem.alloc("h", 4*int64(e.rows)*int64(c.Inner))
		return e.mem.err
	}
	maps := make([]byte, 3*tensorMapSize*c.Layers+64)
	at := maps[(64-uintptr(unsafe.Pointer(&maps[0]))%64)%64:][:3*tensorMapSize*c.Layers]
	bf16 := C.int(0)
	if precision() == "bf16" {
		bf16 = 1
	}
	for i := range e.w.layers {
		for j, m := range []struct {
			p                  cu.DevicePtr
			rows, columns, box int
		}{{b.y, e.rows, c.Width, 128}, {e.w.layers[i].up, 2 * c.Inner, c.Width, 128}, {b.a, e.rows, c.Inner, 64}} {
			if r := C.sp_tensor_map(unsafe.Pointer(&at[(3*i+j)*tensorMapSize]), C.ulonglong(m.p), bf16, C.ulonglong(m.rows), C.ulonglong(m.columns), C.uint(m.box)); r != 0 {
				return fmt.Errorf("describe a matrix [%d, %d] to the copy engine: CUDA error %d", m.rows, m.columns, int(r))
			}
		}
	}
	if s.maps = e.mem.alloc("tensor maps", int64(len(at))); e.mem.err != nil {
		return e.mem.err
	}
	if err := e.dev.stream.Synchronize(); err != nil {
		return err
	}
	return cu.MemcpyHtoD(s.maps, unsafe.Pointer(&at[0]), int64(len(at)))
}

// up is a = silu(y w1^T + b1) * (y w2^T + b2) of layer l, for a multiple of rowTile rows.
func (e *Engine) up(l, rows int) error {
	s, y, b, c := &e.swi, &e.w.layers[l], &e.buf, e.model
	if !s.fused {
		if err := e.product(e.gemm.up, rows, operands{b.y, y.up, b.h, 0}); err != nil {
			return err
		}
		e.mark("swiglu")
		return e.activate(y, rows)
	}
	clusters := min(e.dev.sms/2, rows/rowTile*((2*c.Inner+255)/256))
	return e.dev.launch(s.product, [3]int{2 * clusters, 1, 1}, 384, swigluShared, uint64(s.maps)+uint64(3*tensorMapSize*l), uint64(y.upBias),
		uint64(rows/rowTile), uint64(2*c.Inner), uint64(c.Width))
}

// activate is the second half of up when it is in two.
func (e *Engine) activate(y *layer, rows int) error {
	n := rows * e.model.Inner / 8
	return e.dev.launch(e.swi.activation, [3]int{(n + 511) / 512, 1, 1}, 256, 0, uint64(e.buf.a), uint64(e.buf.h), uint64(y.upBias), uint64(rows), uint64(e.model.Inner))
}
