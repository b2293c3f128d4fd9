//go:build cuda

package gpu

/*
#include <cuda.h>

static int sp_tensor_map(void *map, unsigned long long p, int type, unsigned long long rows, unsigned long long columns,
	unsigned box_rows) {
  // Types 0 fp16, 1 bf16, 2 int8; a box has 128 bytes of a row.
  const CUtensorMapDataType types[3] = {CU_TENSOR_MAP_DATA_TYPE_FLOAT16, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
	CU_TENSOR_MAP_DATA_TYPE_UINT8};
  const cuuint32_t width = type == 2 ? 1 : 2;
  const cuuint64_t dims[2] = {columns, rows}, strides[1] = {width * columns};
  const cuuint32_t box[2] = {128 / width, box_rows}, steps[2] = {1, 1};
  return cuTensorMapEncodeTiled((CUtensorMap *)map, types[type], 2, (void *)p, dims, strides, box, steps,
                                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
	CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"
)

const tensorMapBytes = 128

// matrix is a dense matrix of activations or weights on the device. box is the number of
// rows that TMA copies at once, with 128 bytes of each.
type matrix struct {
	p                  cu.DevicePtr
	rows, columns, box int
	int8               bool
}

// tensorMaps writes the descriptors that kernels/product.cuh needs for TMA, one after
// another on the device.
func (e *Engine) tensorMaps(all []matrix) (cu.DevicePtr, error) {
	const align = 64
	raw := make([]byte, tensorMapBytes*len(all)+align)
	maps := raw[(align-uintptr(unsafe.Pointer(&raw[0]))%align)%align:][:tensorMapBytes*len(all)]
	for i, m := range all {
		kind := C.int(0)
		switch {
		case m.int8:
			kind = 2
		case precision() == "bf16":
			kind = 1
		}
		if r := C.sp_tensor_map(unsafe.Pointer(&maps[i*tensorMapBytes]), C.ulonglong(m.p), kind, C.ulonglong(m.rows),
			C.ulonglong(m.columns), C.uint(m.box)); r != 0 {
			return 0, fmt.Errorf("describe a matrix [%d, %d] to TMA: CUDA error %d", m.rows, m.columns, int(r))
		}
	}
	p := e.mem.alloc("tensor maps", int64(len(maps)))
	if e.mem.err != nil {
		return 0, e.mem.err
	}
	if err := e.dev.stream.Synchronize(); err != nil { // alloc clears
		return 0, err
	}
	return p, cu.MemcpyHtoD(p, unsafe.Pointer(&maps[0]), int64(len(maps)))
}

// productGrid is the grid of a kernel of product.cuh: clusters of two blocks, each of
// which computes one tile of 128 rows by 256 columns at a time.
func (e *Engine) productGrid(rows, columns int) [3]int {
	return [3]int{2 * min(e.dev.sms/2, rows/rowTile*((columns+255)/256)), 1, 1}
}

const productBlock = 384

// ownProducts reports whether the kernels of product.cuh, which need compute capability
// 9.0, run here.
func (e *Engine) ownProducts(kernel string) bool {
	return !e.opt.simple && e.dev.info.Major == 9 && e.mod.has(kernel)
}
