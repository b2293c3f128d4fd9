package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// chunkLen is how many elements one goroutine converts before their pages go
// back: it bounds the file's share of the resident memory. Copies take less time an
// element and are shared out finer.
const (
	chunkLen = 1 << 21
	copyLen  = 1 << 19
)

var (
	errNotFinite = errors.New("contains NaN, infinity or a value outside of float32's range")
	errTooLarge  = errors.New("contains a value outside of bfloat16's range")
)

// Float32 writes the elements [Shape], in order, to dst, whose length must be
// Len. float64 is rounded to nearest. NaN, infinity and what overflows are
// refused; the error names the tensor and wraps ErrCheckpoint.
func (t *Tensor) Float32(dst []float32) error {
	return t.convert(len(dst), func(lo, hi int) error {
		if t.contiguous && t.DType == Float32 {
			return copyFloat32(dst[lo:hi], t.span(lo, hi))
		}
		return t.decode(dst[lo:hi], lo)
	})
}

// BFloat16 writes the elements [Shape], in order, as bfloat16 bits to dst, whose
// length must be Len: rounded to nearest even from their float32 value, so
// bfloat16 weights are exact. Errors are as Float32's.
func (t *Tensor) BFloat16(dst []uint16) error {
	return t.convert(len(dst), func(lo, hi int) error {
		if t.contiguous && t.DType == Float32 {
			return roundFloat32s(dst[lo:hi], t.span(lo, hi))
		}
		if t.contiguous && t.DType == BFloat16 {
			return copyBFloat16(dst[lo:hi], t.span(lo, hi))
		}
		return t.decodeBFloat16(dst[lo:hi], lo)
	})
}

// Stored reports whether Copy can give the tensor: its elements lie in order and
// without gaps, as float32, bfloat16 or float16.
func (t *Tensor) Stored() bool { return t.contiguous && t.DType != Float64 }

// Copy fills dst with elements from first on as the file has them, DType.Size bytes
// each, little-endian; they must be Stored. NaN and infinity are refused as by
// Float32.
func (t *Tensor) Copy(dst []byte, first int) error {
	w := t.DType.Size()
	n := len(dst) / w
	if !t.Stored() || len(dst)%w != 0 || first < 0 || n > t.Len()-first {
		return fmt.Errorf("tensor %s: cannot read %d bytes from element %d", t.Name, len(dst), first)
	}
	return t.reading(func() error {
		return chunks(first, first+n, copyLen, func(lo, hi int) error {
			part := dst[(lo-first)*w : (hi-first)*w]
			if err := t.c.m.read(part, t.span(lo, hi)); err != nil {
				return err
			}
			if !finite(part, t.DType) {
				return errNotFinite
			}
			return nil
		})
	})
}

// convert runs fn over all elements in chunks and releases their pages.
func (t *Tensor) convert(n int, fn func(lo, hi int) error) error {
	if n != t.Len() {
		return fmt.Errorf("tensor %s: %d elements do not fit a slice of %d", t.Name, t.Len(), n)
	}
	return t.reading(func() error {
		err := chunks(0, n, chunkLen, func(lo, hi int) error {
			if !t.contiguous {
				return fn(lo, hi)
			}
			b := t.span(lo, hi)
			t.c.m.populate(b)
			defer t.c.m.release(b)
			return fn(lo, hi)
		})
		if !t.contiguous {
			t.release()
		}
		return err
	})
}

// reading runs fn while the checkpoint is open.
func (t *Tensor) reading(fn func() error) error {
	t.c.mu.RLock()
	defer t.c.mu.RUnlock()
	if t.c.closed {
		return fmt.Errorf("tensor %s: checkpoint %s is closed", t.Name, t.c.path)
	}
	if err := fn(); err != nil {
		return fmt.Errorf("checkpoint %s: %w: tensor %s: %w", t.c.path, ErrCheckpoint, t.Name, err)
	}
	return nil
}

// chunks calls fn for ranges of up to chunk that cover lo..hi-1, from several
// goroutines when there are many, and returns its first error.
func chunks(lo, hi, chunk int, fn func(lo, hi int) error) error {
	workers := min(runtime.GOMAXPROCS(0), (hi-lo+chunk-1)/chunk)
	var next atomic.Int64
	next.Store(int64(lo))
	var once sync.Once
	var first error
	work := func() {
		for {
			lo := int(next.Add(int64(chunk))) - chunk
			if lo >= hi {
				return
			}
			if err := guardFaults(func() error { return fn(lo, min(hi, lo+chunk)) }); err != nil {
				once.Do(func() { first = err })
				next.Store(int64(hi)) // the others stop at their next chunk
				return
			}
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	return first
}

// guardFaults turns a fault on the mapping, which is what a file that was cut
// short or a failing disk gives, into an error.
func guardFaults(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			if _, fault := p.(interface{ Addr() uintptr }); fault {
				err = errors.New("the file can no longer be read: it was truncated, or its disk is failing")
				return
			}
			err = fmt.Errorf("malformed: %s", clip(fmt.Sprint(p), 100))
		}
	}()
	return fn()
}

// finite reports whether no element of b has an exponent of all ones. It looks at
// eight bytes at once: one more in such an exponent's last place carries into the
// sign's, and no other does.
func finite(b []byte, d DType) bool {
	exponent, one := uint64(infBits)*(1<<32+1), uint64(1<<23)*(1<<32+1)
	switch d {
	case BFloat16:
		exponent, one = 0x7f80*(1<<48+1<<32+1<<16+1), 1<<7*(1<<48+1<<32+1<<16+1)
	case Float16:
		exponent, one = 0x7c00*(1<<48+1<<32+1<<16+1), 1<<10*(1<<48+1<<32+1<<16+1)
	}
	var carried uint64
	for ; len(b) >= 8; b = b[8:] {
		carried |= binary.LittleEndian.Uint64(b)&exponent + one
	}
	var rest [8]byte
	copy(rest[:], b)
	carried |= binary.LittleEndian.Uint64(rest[:])&exponent + one
	return carried&(exponent+one) == 0
}

func copyFloat32(dst []float32, b []byte) error {
	var top uint32
	b = b[:4*len(dst)]
	for i := range dst {
		u := binary.LittleEndian.Uint32(b[4*i:])
		top = max(top, u&signlessMask)
		dst[i] = math.Float32frombits(u)
	}
	if top >= infBits {
		return errNotFinite
	}
	return nil
}

func roundFloat32s(dst []uint16, b []byte) error {
	var top uint32
	b = b[:4*len(dst)]
	for i := range dst {
		u := binary.LittleEndian.Uint32(b[4*i:])
		top = max(top, u&signlessMask)
		dst[i] = roundBFloat16(u)
	}
	return checkBFloat16(top)
}

// checkBFloat16 judges the largest float32 magnitude, as bits, of what was rounded.
func checkBFloat16(top uint32) error {
	if top >= infBits {
		return errNotFinite
	}
	if top >= bf16OverBits {
		return errTooLarge
	}
	return nil
}

func copyBFloat16(dst []uint16, b []byte) error {
	var top uint16
	b = b[:2*len(dst)]
	for i := range dst {
		u := binary.LittleEndian.Uint16(b[2*i:])
		top = max(top, u&0x7fff)
		dst[i] = u
	}
	if top >= infBits>>16 {
		return errNotFinite
	}
	return nil
}

// decodeBFloat16 is BFloat16 for any layout and type, by way of float32.
func (t *Tensor) decodeBFloat16(dst []uint16, lo int) error {
	var buf [1024]float32
	for len(dst) > 0 {
		f := buf[:min(len(dst), len(buf))]
		if err := t.decode(f, lo); err != nil {
			return err
		}
		var top uint32
		for i, v := range f {
			u := math.Float32bits(v)
			top = max(top, u&signlessMask)
			dst[i] = roundBFloat16(u)
		}
		if err := checkBFloat16(top); err != nil {
			return err
		}
		dst, lo = dst[len(f):], lo+len(f)
	}
	return nil
}

// decode is Float32 for any layout and type: elements lo.. in order.
func (t *Tensor) decode(dst []float32, lo int) error {
	last := len(t.Shape) - 1
	width, step := t.Shape[last], t.steps[last]
	for len(dst) > 0 {
		// One run along the last dimension.
		row, col := lo/width, lo%width
		at := t.offset + col*step
		for d := last - 1; d >= 0; d-- {
			at += row % t.Shape[d] * t.steps[d]
			row /= t.Shape[d]
		}
		n := min(len(dst), width-col)
		if err := decodeRun(dst[:n], t.data, t.DType, at, step); err != nil {
			return err
		}
		dst, lo = dst[n:], lo+n
	}
	return nil
}

// decodeRun widens or narrows elements at, at+step, ... of data.
func decodeRun(dst []float32, data []byte, d DType, at, step int) error {
	w := d.Size()
	var top uint32
	for i := range dst {
		b := data[(at+i*step)*w:]
		var f float32
		switch d {
		case Float32:
			f = math.Float32frombits(binary.LittleEndian.Uint32(b))
		case BFloat16:
			f = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
		case Float16:
			f = halfToFloat(binary.LittleEndian.Uint16(b))
		case Float64:
			f = float32(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		}
		top = max(top, math.Float32bits(f)&signlessMask)
		dst[i] = f
	}
	if top >= infBits {
		return errNotFinite
	}
	return nil
}
