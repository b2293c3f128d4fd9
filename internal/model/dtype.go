package model

import "math"

// DType is an element type of a storage. Only the four floating types can be
// weights; others occur in what a checkpoint holds beside them.
type DType uint8

// The element types, by torch's names.
const (
	Invalid DType = iota
	Float32
	BFloat16
	Float16
	Float64
	Int8
	UInt8
	Int16
	Int32
	Int64
	Bool
	Complex64
	Complex128
)

var dtypes = [...]struct {
	name string
	size int
}{
	Invalid: {"invalid", 1}, Float32: {"float32", 4}, BFloat16: {"bfloat16", 2}, Float16: {"float16", 2},
	Float64: {"float64", 8},
	Int8:    {"int8", 1}, UInt8: {"uint8", 1}, Int16: {"int16", 2}, Int32: {"int32", 4}, Int64: {"int64", 8},
	Bool:      {"bool", 1},
	Complex64: {"complex64", 8}, Complex128: {"complex128", 16},
}

func (d DType) String() string { return dtypes[d].name }

// Size is an element's bytes.
func (d DType) Size() int { return dtypes[d].size }

func (d DType) float() bool { return d >= Float32 && d <= Float64 }

// Values that leave the finite range, as float32 bits without the sign.
const (
	infBits       = 0x7f800000 // infinity and NaN
	bf16OverBits  = 0x7f7f8000 // rounds to infinity in bfloat16
	signlessMask  = 0x7fffffff
	bf16RoundBias = 0x7fff
)

// roundBFloat16 rounds the float32 with bits u to the nearest bfloat16, ties to
// even. u is finite.
func roundBFloat16(u uint32) uint16 { return uint16((u + bf16RoundBias + u>>16&1) >> 16) }

// halfToFloat widens an IEEE half; exact.
func halfToFloat(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&1023)
	switch exp {
	case 0: // zero and subnormals: frac * 2^-24
		f := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(f) | sign)
	case 31:
		return math.Float32frombits(sign | infBits | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}
