package cpu

/*
#include "kernels.h"
*/
import "C"

// The functions that the kernels use on vectors.
const (
	fnExp = iota
	fnSigmoid
	fnSilu
	fnSoftplus
)

// mapped applies one of them to x in place, as the kernels of a set do; for tests,
// which may not call C themselves.
func mapped(set *C.sp_set, fn int, x []float32) {
	C.sp_map(set, C.int32_t(fn), ptr(x), C.int64_t(len(x)))
}
