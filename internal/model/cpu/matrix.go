package cpu

/*
#include "kernels.h"
*/
import "C"

// matrix is a linear's weight, transposed to [in, out] and packed in panels for
// the engine's instruction set, as product.h says.
type matrix struct {
	set     *C.sp_set
	data    []float32
	in, out int
}

// panelsOf is the width of n columns in whole panels, of any instruction set.
func panelsOf(n int) int { return roundUp(n, widestPanel) }

// widestPanel is the most columns that a set has in a panel.
const widestPanel = 32

func (m *memory) matrix(set *C.sp_set, in, out int) matrix {
	return matrix{set: set, data: m.floats(in * roundUp(out, int(set.panel))), in: in, out: out}
}

// mulTo is c [rows, w.out] = a [rows, w.in] w, or c += a w. Strides are in floats.
// It writes c's columns up to panelsOf(w.out) at most, which hold nothing of use.
func (w matrix) mulTo(c []float32, ldc int, a []float32, lda, rows int, add bool) {
	if rows == 0 {
		return
	}
	var sum C.int32_t
	if add {
		sum = 1
	}
	C.sp_product(w.set, (*C.float)(&a[0]), C.int64_t(lda), C.int64_t(rows),
		(*C.float)(&w.data[0]), C.int64_t(w.in), C.int64_t(w.out), (*C.float)(&c[0]), C.int64_t(ldc), sum)
}

// setColumns writes a linear's weight src [out, in] to columns col..col+out-1.
func (w matrix) setColumns(col int, src []float32, out int) {
	panel := int(w.set.panel)
	width := roundUp(w.out, panel)
	for i0 := 0; i0 < w.in; i0 += C.SP_DEPTH {
		depth := min(C.SP_DEPTH, w.in-i0)
		block := w.data[i0*width:][:depth*width]
		for o := range out {
			at := (col+o)/panel*panel*depth + (col+o)%panel
			for i, v := range src[o*w.in+i0:][:depth] {
				block[at+i*panel] = v
			}
		}
	}
}
