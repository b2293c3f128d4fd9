package pq

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Thrift's compact protocol, read straight from bytes. The parquet library's
// own decoder allocates by the list lengths that the bytes claim and recurses
// as deep as they nest, so that a hostile footer of a few bytes ends the
// process; this one does neither.

const (
	tStop   = 0
	tTrue   = 1
	tFalse  = 2
	tI8     = 3
	tI16    = 4
	tI32    = 5
	tI64    = 6
	tDouble = 7
	tBinary = 8
	tList   = 9
	tSet    = 10
	tMap    = 11
	tStruct = 12
	tUUID   = 13
)

const maxThriftDepth = 32

var (
	errThriftShort = errors.New("metadata ends too early")
	errThriftBad   = errors.New("metadata is not valid thrift")
)

// thriftReader reads values in order. The first error sticks; every later read
// gives zeros, so that callers check once.
type thriftReader struct {
	b   []byte
	i   int
	err error
}

func (r *thriftReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.i = len(r.b)
}

func (r *thriftReader) byte() byte {
	if r.i >= len(r.b) {
		r.fail(errThriftShort)
		return 0
	}
	r.i++
	return r.b[r.i-1]
}

func (r *thriftReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b[r.i:])
	switch {
	case n == 0:
		r.fail(errThriftShort)
		return 0
	case n < 0:
		r.fail(errThriftBad)
		return 0
	}
	r.i += n
	return v
}

func (r *thriftReader) int64() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (r *thriftReader) int32() int32 {
	v := r.int64()
	if v != int64(int32(v)) {
		r.fail(fmt.Errorf("%w: %d does not fit 32 bits", errThriftBad, v))
	}
	return int32(v)
}

// i32 reads a field that is to be an i32.
func (r *thriftReader) i32(typ byte) int32 {
	r.want(typ, tI32)
	return r.int32()
}

// bytes gives a view of the input.
func (r *thriftReader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)-r.i) {
		r.fail(errThriftShort)
		return nil
	}
	v := r.b[r.i : r.i+int(n)]
	r.i += int(n)
	return v
}

func (r *thriftReader) string() string { return string(r.bytes()) }

// list reads a list's header. Every element takes a byte at least, so a length
// past the end is refused before anybody allocates by it.
func (r *thriftReader) list() (n int, elem byte) {
	h := r.byte()
	size := uint64(h >> 4)
	if size == 15 {
		size = r.uvarint()
	}
	if size > uint64(len(r.b)-r.i) {
		r.fail(errThriftShort)
		return 0, 0
	}
	return int(size), h & 15
}

// structs calls do for each field of a struct; do returns false for a field
// that it does not read, which is then skipped.
func (r *thriftReader) structs(do func(id int16, typ byte) bool) {
	var id int16
	for r.err == nil {
		h := r.byte()
		typ := h & 15
		if h == tStop || r.err != nil {
			return
		}
		if d := h >> 4; d != 0 {
			id += int16(d)
		} else {
			id = int16(r.int64())
		}
		if !do(id, typ) {
			r.skip(typ, 0)
		}
	}
}

// want fails unless a field has the type that it should have.
func (r *thriftReader) want(got, want byte) bool {
	if got != want {
		r.fail(fmt.Errorf("%w: type %d where %d belongs", errThriftBad, got, want))
	}
	return got == want
}

// atLeast fails when what was read since from has fewer than n bytes.
func (r *thriftReader) atLeast(n, from int) {
	if r.err == nil && r.i-from < n {
		r.fail(fmt.Errorf("%w: a struct of %d bytes", errThriftBad, r.i-from))
	}
}

func (r *thriftReader) skip(typ byte, depth int) {
	if depth > maxThriftDepth {
		r.fail(fmt.Errorf("%w: nested too deep", errThriftBad))
		return
	}
	switch typ {
	case tTrue, tFalse: // the value is in the type
	case tI8:
		r.byte()
	case tI16, tI32, tI64:
		r.uvarint()
	case tDouble:
		r.advance(8)
	case tUUID:
		r.advance(16)
	case tBinary:
		r.bytes()
	case tList, tSet:
		n, elem := r.list()
		for k := 0; k < n && r.err == nil; k++ {
			r.skipElement(elem, depth+1)
		}
	case tMap:
		n := r.uvarint()
		if n == 0 {
			return
		}
		if n > uint64(len(r.b)-r.i) {
			r.fail(errThriftShort)
			return
		}
		kv := r.byte()
		for k := uint64(0); k < n && r.err == nil; k++ {
			r.skipElement(kv>>4, depth+1)
			r.skipElement(kv&15, depth+1)
		}
	case tStruct:
		for r.err == nil {
			h := r.byte()
			if h == tStop {
				return
			}
			if h>>4 == 0 {
				r.int64()
			}
			r.skip(h&15, depth+1)
		}
	default:
		r.fail(fmt.Errorf("%w: unknown type %d", errThriftBad, typ))
	}
}

// skipElement skips an element of a container, where a bool takes a byte.
func (r *thriftReader) skipElement(typ byte, depth int) {
	if typ == tTrue || typ == tFalse {
		r.byte()
		return
	}
	r.skip(typ, depth)
}

func (r *thriftReader) advance(n int) {
	if n > len(r.b)-r.i {
		r.fail(errThriftShort)
		return
	}
	r.i += n
}
