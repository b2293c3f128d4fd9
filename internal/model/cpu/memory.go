package cpu

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"
)

// memory is float32 and other plain storage outside Go's heap: 5.8 GB of weights
// there would let the collector wait for as much garbage again, and C may keep
// pointers to it.
type memory struct {
	maps  [][]byte
	bytes int64
	err   error // the first failure; later allocations give empty slices
}

const floatBytes = 4

// floats gives n zeroed floats, aligned to a page.
func (m *memory) floats(n int) []float32 {
	b := m.alloc(int64(n) * floatBytes)
	if b == nil {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), n)
}

func (m *memory) alloc(size int64) []byte {
	if m.err != nil || size == 0 {
		return nil
	}
	b, err := syscall.Mmap(-1, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		m.err = fmt.Errorf("allocate %d bytes beside %d: %w", size, m.bytes, err)
		return nil
	}
	advise(b)
	m.maps, m.bytes = append(m.maps, b), m.bytes+size
	return b
}

// free gives everything back; no slice of it may be used after.
func (m *memory) free() error {
	var errs []error
	for _, b := range m.maps {
		errs = append(errs, syscall.Munmap(b))
	}
	m.maps, m.bytes = nil, 0
	return errors.Join(errs...)
}

// roundUp is the least multiple of to that is >= n.
func roundUp(n, to int) int { return (n + to - 1) / to * to }
