package compact

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The types of values.
const (
	tStop   = 0
	True    = 1
	False   = 2
	tI8     = 3
	tI16    = 4
	I32     = 5
	I64     = 6
	tDouble = 7
	Binary  = 8
	List    = 9
	tSet    = 10
	Map     = 11
	Struct  = 12
	tUUID   = 13
)

const maxThriftDepth = 32

var (
	ErrShort = errors.New("metadata ends too early")
	ErrBad   = errors.New("metadata is not valid thrift")
)

// Reader reads values in order. The first error sticks; every later read
// gives zeros, so that callers check once.
type Reader struct {
	B   []byte
	At  int
	Err error
}

func (r *Reader) Fail(err error) {
	if r.Err == nil {
		r.Err = err
	}
	r.At = len(r.B)
}

func (r *Reader) Byte() byte {
	if r.At >= len(r.B) {
		r.Fail(ErrShort)
		return 0
	}
	r.At++
	return r.B[r.At-1]
}

func (r *Reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.B[r.At:])
	switch {
	case n == 0:
		r.Fail(ErrShort)
		return 0
	case n < 0:
		r.Fail(ErrBad)
		return 0
	}
	r.At += n
	return v
}

func (r *Reader) Int64() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (r *Reader) Int32() int32 {
	v := r.Int64()
	if v != int64(int32(v)) {
		r.Fail(fmt.Errorf("%w: %d does not fit 32 bits", ErrBad, v))
	}
	return int32(v)
}

// I32 reads a field that is to be an i32.
func (r *Reader) I32(typ byte) int32 {
	r.Want(typ, I32)
	return r.Int32()
}

// Bytes gives a view of the input.
func (r *Reader) Bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.B)-r.At) {
		r.Fail(ErrShort)
		return nil
	}
	v := r.B[r.At : r.At+int(n)]
	r.At += int(n)
	return v
}

func (r *Reader) String() string { return string(r.Bytes()) }

// List reads a list's header. Every element takes a byte at least, so a length
// past the end is refused before anybody allocates by it.
func (r *Reader) List() (n int, elem byte) {
	h := r.Byte()
	size := uint64(h >> 4)
	if size == 15 {
		size = r.uvarint()
	}
	if size > uint64(len(r.B)-r.At) {
		r.Fail(ErrShort)
		return 0, 0
	}
	return int(size), h & 15
}

// Struct calls do for each field of a struct; do returns false for a field
// that it does not read, which is then skipped.
func (r *Reader) Struct(do func(id int16, typ byte) bool) {
	var id int16
	for r.Err == nil {
		h := r.Byte()
		typ := h & 15
		if h == tStop || r.Err != nil {
			return
		}
		if d := h >> 4; d != 0 {
			id += int16(d)
		} else {
			id = int16(r.Int64())
		}
		if !do(id, typ) {
			r.Skip(typ, 0)
		}
	}
}

// Want fails unless a field has the type that it should have.
func (r *Reader) Want(got, want byte) bool {
	if got != want {
		r.Fail(fmt.Errorf("%w: found type %d, expected type %d", ErrBad, got, want))
	}
	return got == want
}

// AtLeast fails when what was read since from has fewer than n bytes.
func (r *Reader) AtLeast(n, from int) {
	if r.Err == nil && r.At-from < n {
		r.Fail(fmt.Errorf("%w: a struct of %d bytes", ErrBad, r.At-from))
	}
}

func (r *Reader) Skip(typ byte, depth int) {
	if depth > maxThriftDepth {
		r.Fail(fmt.Errorf("%w: nested too deep", ErrBad))
		return
	}
	switch typ {
	case True, False: // the value is in the type
	case tI8:
		r.Byte()
	case tI16, I32, I64:
		r.uvarint()
	case tDouble:
		r.advance(8)
	case tUUID:
		r.advance(16)
	case Binary:
		r.Bytes()
	case List, tSet:
		n, elem := r.List()
		for k := 0; k < n && r.Err == nil; k++ {
			r.skipElement(elem, depth+1)
		}
	case Map:
		n := r.uvarint()
		if n == 0 {
			return
		}
		if n > uint64(len(r.B)-r.At) {
			r.Fail(ErrShort)
			return
		}
		kv := r.Byte()
		for k := uint64(0); k < n && r.Err == nil; k++ {
			r.skipElement(kv>>4, depth+1)
			r.skipElement(kv&15, depth+1)
		}
	case Struct:
		for r.Err == nil {
			h := r.Byte()
			if h == tStop {
				return
			}
			if h>>4 == 0 {
				r.Int64()
			}
			r.Skip(h&15, depth+1)
		}
	default:
		r.Fail(fmt.Errorf("%w: unknown type %d", ErrBad, typ))
	}
}

// skipElement skips an element of a container, where a bool takes a byte.
func (r *Reader) skipElement(typ byte, depth int) {
	if typ == True || typ == False {
		r.Byte()
		return
	}
	r.Skip(typ, depth)
}

func (r *Reader) advance(n int) {
	if n > len(r.B)-r.At {
		r.Fail(ErrShort)
		return
	}
	r.At += n
}
