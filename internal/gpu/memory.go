//go:build cuda

package gpu

import (
	"errors"
	"fmt"
	"unsafe"

	"gorgonia.org/cu"
)

// memory is device memory that is freed together. After the first error, alloc does nothing.
type memory struct {
	stream cu.Stream
	ptrs   []cu.DevicePtr
	total  int64
	err    error
	// poison fills new memory, for tests; nil for zeros.
	poison func(p cu.DevicePtr, bytes int64) error
}

// alloc returns zeroed memory, 256-byte aligned. what names its purpose.
func (m *memory) alloc(what string, bytes int64) cu.DevicePtr {
	if m.err != nil || bytes == 0 {
		return 0
	}
	p, err := cu.MemAlloc(bytes)
	if err != nil {
		m.err = fmt.Errorf("allocate %d MiB of GPU memory for %s, after %d MiB: %w", bytes>>20, what, m.total>>20, err)
		return 0
	}
	m.ptrs = append(m.ptrs, p)
	m.total += bytes
	if m.poison != nil {
		err = m.poison(p, bytes)
	} else {
		err = cu.MemsetD8Async(p, 0, bytes, m.stream)
	}
	if err != nil {
		m.err = fmt.Errorf("clear memory for %s: %w", what, err)
	}
	return p
}

func (m *memory) free() error {
	var errs []error
	for _, p := range m.ptrs {
		if err := cu.MemFree(p); err != nil {
			errs = append(errs, err)
		}
	}
	m.ptrs, m.total = nil, 0
	if len(errs) > 0 {
		return fmt.Errorf("free GPU memory: %w", errs[0])
	}
	return nil
}

// pinned is page-locked host memory, for copies at full speed.
type pinned struct {
	p     unsafe.Pointer
	bytes int
}

func newPinned(bytes int) (pinned, error) {
	p, err := hostAlloc(max(bytes, 1))
	return pinned{p, bytes}, err
}

func (p *pinned) free() {
	if p.p != nil {
		hostFree(p.p)
		p.p = nil
	}
}

func unsafeAdd(p unsafe.Pointer, n int) unsafe.Pointer { return unsafe.Add(p, n) }

func viewOf[T any](p pinned) []T {
	var zero T
	return unsafe.Slice((*T)(p.p), p.bytes/int(unsafe.Sizeof(zero)))
}

var errBudget = errors.New("does not fit the GPU's free memory")
