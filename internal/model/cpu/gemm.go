package cpu

/*
#cgo CFLAGS: -O3 -std=gnu11 -Wall -Wno-psabi
#cgo LDFLAGS: -L${SRCDIR}/../../../.build/lib -lsurprisal_gemm -lm
#include <stddef.h>

// gemm/src/lib.rs
void surprisal_sgemm(size_t m, size_t n, size_t k,
	const float *a, ptrdiff_t rsa, ptrdiff_t csa,
	const float *b, ptrdiff_t rsb, ptrdiff_t csb,
	float *c, ptrdiff_t rsc, ptrdiff_t csc, float beta);
*/
import "C"

// matrix is a linear's weight, transposed to [in, out], row-major: the product's
// library then copies its panels in whole cache lines.
type matrix struct {
	data    []float32 // [in, ld]
	in, out int
	ld      int
}

// stride is the row stride for n columns, in floats: whole cache lines.
func stride(n int) int { return roundUp(n, 16) }

func (m *memory) matrix(in, out int) matrix {
	return matrix{data: m.floats(in * stride(out)), in: in, out: out, ld: stride(out)}
}

// mulTo is c [rows, w.out] = a [rows, w.in] w, or c += a w. Strides are in floats.
func (w matrix) mulTo(c []float32, ldc int, a []float32, lda, rows int, add bool) {
	if rows == 0 {
		return
	}
	var beta C.float
	if add {
		beta = 1
	}
	C.surprisal_sgemm(C.size_t(rows), C.size_t(w.out), C.size_t(w.in),
		(*C.float)(&a[0]), C.ptrdiff_t(lda), 1,
		(*C.float)(&w.data[0]), C.ptrdiff_t(w.ld), 1,
		(*C.float)(&c[0]), C.ptrdiff_t(ldc), 1, beta)
}

// setColumns writes a linear's weight src [out, in] to columns col..col+out-1.
func (w matrix) setColumns(col int, src []float32, out int) {
	const block = 32 // both sides' lines stay in the first-level cache
	for i0 := 0; i0 < w.in; i0 += block {
		for o0 := 0; o0 < out; o0 += block {
			for i := i0; i < min(i0+block, w.in); i++ {
				row := w.data[i*w.ld+col:]
				for o := o0; o < min(o0+block, out); o++ {
					row[o] = src[o*w.in+i]
				}
			}
		}
	}
}
