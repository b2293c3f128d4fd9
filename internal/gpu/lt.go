//go:build cuda

package gpu

/*
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "lt.h"
int surprisal_cuda_status(const char **why);
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"gorgonia.org/cu"
)

// blas is a cuBLASLt handle of the current context.
type blas struct {
	lt      *C.sp_lt
	version int
}

// ltNames lists where cuBLASLt may be, in order of preference: the file named by the
// environment, the toolkit's, the loader's, and the wheel that `make gpu` installed.
func ltNames() []string {
	const so = "libcublasLt.so.13"
	var names []string
	for _, v := range []string{"SURPRISAL_CUBLASLT", "CUDA_HOME"} {
		dir := os.Getenv(v)
		if dir == "" {
			continue
		}
		if v != "CUDA_HOME" {
			return []string{dir}
		}
		names = append(names, filepath.Join(dir, "lib64", so), filepath.Join(dir, "lib", so))
	}
	names = append(names, so, "/usr/local/cuda/lib64/"+so)
	if exe, err := os.Executable(); err == nil {
		dir := filepath.Dir(exe)
		names = append(names, filepath.Join(dir, so), filepath.Join(dir, "..", ".build/cuda/toolkit/cu13/lib", so))
	}
	return names
}

func openBLAS() (*blas, error) {
	message := make([]byte, C.sp_message_size)
	var reasons []error
	for _, name := range ltNames() {
		if filepath.IsAbs(name) {
			if _, err := os.Stat(name); err != nil {
				reasons = append(reasons, err)
				continue
			}
		}
		path := C.CString(name)
		lt := C.sp_lt_open(path, (*C.char)(unsafe.Pointer(&message[0])))
		C.free(unsafe.Pointer(path))
		if lt != nil {
			return &blas{lt: lt, version: int(C.sp_lt_version(lt))}, nil
		}
		reasons = append(reasons, errors.New(cText(message)))
	}
	return nil, fmt.Errorf("load libcublasLt.so.13 (set CUDA_HOME, or SURPRISAL_CUBLASLT to the file): %w",
		errors.Join(reasons...))
}

func (b *blas) close() {
	if b != nil && b.lt != nil {
		C.sp_lt_close(b.lt)
		b.lt = nil
	}
}

// precision is the type of activations and matrix weights.
func precision() string { return C.GoString(C.sp_precision()) }

// algorithm is one of the library's ways to compute a product.
type algorithm = C.sp_algo

// product is y[M, N] = x[M, K] w[N, K]^T, or y += that, by one algorithm.
type product struct {
	name string
	c    C.sp_product
	algo algorithm
	// took is the algorithm's time in milliseconds for this number of rows, measured at
	// load; what describes the algorithm.
	took float64
	rows int
	what string
}

// Kinds of a product's output.
const (
	toAct     = iota
	toActBias // y = x w^T + bias, the bias in y's type
	toFP32
	addFP32 // y += x w^T, fp32
)

func newProduct(name string, n, k, ldx, ldy, out int) *product {
	flag := func(b bool) C.int32_t {
		if b {
			return 1
		}
		return 0
	}
	return &product{name: name, c: C.sp_product{
		n: C.int64_t(n), k: C.int64_t(k), ldx: C.int64_t(ldx), ldw: C.int64_t(k), ldy: C.int64_t(ldy),
		fp32_out: flag(out == toFP32 || out == addFP32), accumulate: flag(out == addFP32), bias: flag(out == toActBias),
	}}
}

// candidates lists the library's algorithms for m rows, in its order of preference.
func (b *blas) candidates(p *product, m int) ([]algorithm, error) {
	const most = 32
	algos := make([]algorithm, most)
	message := make([]byte, C.sp_message_size)
	n := C.sp_lt_candidates(b.lt, &p.c, C.int64_t(m), most, &algos[0], (*C.char)(unsafe.Pointer(&message[0])))
	if n < 0 {
		return nil, fmt.Errorf("%s [%d x %d], %d rows: %s", p.name, p.c.n, p.c.k, m, cText(message))
	}
	return algos[:n], nil
}

// operands are a product's matrices on the device.
type operands struct{ x, w, y, bias cu.DevicePtr }

func (b *blas) run(p *product, m int, o operands, s cu.Stream) error {
	return b.runWith(p, &p.algo, m, o, s)
}

func (b *blas) runWith(p *product, algo *algorithm, m int, o operands, s cu.Stream) error {
	var message [C.sp_message_size]byte
	failed := C.sp_lt_run(b.lt, &p.c, algo, C.int64_t(m), C.uint64_t(o.x), C.uint64_t(o.w), C.uint64_t(o.y),
		C.uint64_t(o.bias), unsafe.Pointer(s.C()), (*C.char)(unsafe.Pointer(&message[0])))
	if failed != 0 {
		return fmt.Errorf("%s: %s", p.name, cText(message[:]))
	}
	return nil
}

func (b *blas) describe(algo *algorithm) string {
	message := make([]byte, C.sp_message_size)
	C.sp_lt_describe(b.lt, algo, (*C.char)(unsafe.Pointer(&message[0])))
	return cText(message)
}

// driverStatus is nil if the CUDA driver is installed and works.
func driverStatus() error {
	var why *C.char
	if s := C.surprisal_cuda_status(&why); s != 0 {
		if r := C.GoString(why); r != "" {
			return fmt.Errorf("no CUDA driver: %s", r)
		}
		return fmt.Errorf("CUDA driver: cuInit failed with error %d", int(s))
	}
	return nil
}

// allowShared allows a kernel more than 48 KB of dynamic shared memory.
func allowShared(fn cu.Function, bytes int) error {
	if r := C.sp_func_shared(*(*unsafe.Pointer)(unsafe.Pointer(&fn)), C.int(bytes)); r != 0 {
		return fmt.Errorf("request %d bytes of shared memory: CUDA error %d", bytes, int(r))
	}
	return nil
}

// hostAlloc allocates pinned memory.
func hostAlloc(bytes int) (unsafe.Pointer, error) {
	var p unsafe.Pointer
	if r := C.sp_host_alloc(&p, C.size_t(bytes)); r != 0 {
		return nil, fmt.Errorf("pin %d bytes: CUDA error %d", bytes, int(r))
	}
	return p, nil
}

func hostFree(p unsafe.Pointer) {
	C.sp_host_free(p)
}

func cText(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
