package model

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"
)

// Tensor is one weight of an open Checkpoint.
type Tensor struct {
	Name  string
	Shape []int
	DType DType // as stored

	c *Checkpoint
	// data [offset..] is looked at with steps: element (i, j, ...) is element
	// offset + i*steps[0] + j*steps[1] + ... of data. Both are in elements.
	data   []byte
	offset int
	steps  []int
	// contiguous: elements lie in order without gaps from offset.
	contiguous bool
}

// newTensor checks a reference against what is wanted and against its storage.
func (c *Checkpoint) newTensor(want TensorShape, ref *tensorRef, storage func(string) ([]byte, error)) (*Tensor,
	error) {
	s := ref.storage
	if !slices.Equal(ref.size, want.Shape) {
		return nil, fmt.Errorf("shape is %v, but the config requires %v", ref.size, want.Shape)
	}
	if !s.dtype.float() {
		return nil, fmt.Errorf("type is %s, must be float32, bfloat16, float16 or float64", s.dtype)
	}
	data, err := storage(s.key)
	if err != nil {
		return nil, err
	}
	width := s.dtype.Size()
	have := len(data) / width
	// Nothing below overflows: base, numel and have are within the file's length.
	if s.base > have || s.numel > have-s.base {
		return nil, fmt.Errorf("storage has %d bytes, but %d %s elements need %d", len(data), s.numel, s.dtype,
			uint64(s.numel)*uint64(width))
	}
	data = data[s.base*width : (s.base+s.numel)*width]
	outside := errors.New("elements outside of the storage")
	if ref.offset >= s.numel {
		return nil, outside
	}
	room := s.numel - 1 - ref.offset // steps that may be taken from the first element
	contiguous, run := true, 1
	for i := len(ref.size) - 1; i >= 0; i-- {
		d, step := ref.size[i], ref.steps[i]
		if d == 1 {
			continue
		}
		contiguous = contiguous && step == run
		run *= d
		if step > 0 && d-1 > room/step {
			return nil, outside
		}
		room -= (d - 1) * step
	}
	return &Tensor{
		Name: want.Name, Shape: want.Shape, DType: s.dtype, c: c,
		data: data, offset: ref.offset, steps: ref.steps, contiguous: contiguous,
	}, nil
}

// Len is the number of elements.
func (t *Tensor) Len() int { return product(t.Shape) }

// span is the bytes of the contiguous elements lo..hi-1.
func (t *Tensor) span(lo, hi int) []byte {
	w := t.DType.Size()
	return t.data[(t.offset+lo)*w : (t.offset+hi)*w]
}

// Float32View gives the elements [Shape] in place, without a copy, when they
// are contiguous and aligned little-endian float32, and all finite (they are
// read once to tell). Otherwise ok is false: call Float32, which says why if it
// can't help either. The view is read-only, of a file that must not shrink, and
// ends with Close.
func (t *Tensor) Float32View() (view []float32, ok bool) {
	t.c.mu.RLock()
	defer t.c.mu.RUnlock()
	if t.c.closed || t.DType != Float32 || !t.contiguous || !littleEndian {
		return nil, false
	}
	b := t.span(0, t.Len())
	p := unsafe.Pointer(unsafe.SliceData(b))
	if uintptr(p)%unsafe.Alignof(float32(0)) != 0 {
		return nil, false
	}
	err := chunks(0, t.Len(), chunkLen, func(lo, hi int) error {
		if !finite(t.span(lo, hi), Float32) {
			return errNotFinite
		}
		return nil
	})
	if err != nil {
		return nil, false
	}
	return unsafe.Slice((*float32)(p), t.Len()), true
}

// Release gives the pages that the tensor's elements take in memory back to the
// kernel; they come from the file again when they are next read. The conversions
// do so by themselves.
func (t *Tensor) Release() {
	t.c.mu.RLock()
	defer t.c.mu.RUnlock()
	if !t.c.closed {
		t.release()
	}
}

func (t *Tensor) release() {
	if t.contiguous {
		t.c.m.release(t.span(0, t.Len()))
		return
	}
	t.c.m.release(t.data)
}

var littleEndian = func() bool {
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 1
}()
