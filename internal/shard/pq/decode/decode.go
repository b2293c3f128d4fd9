package decode

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// Vector is a page's values (or a dictionary's), each a run of bytes: of a
// fixed width, little-endian as PLAIN has it (a bool is one byte), or of its
// own length. Decoding checks every bound, so that at can't fail.
type Vector struct {
	N     int
	Width int // 0: spans are used
	Data  []byte
	Spans []Span
	Index []uint32 // into dict, when dict is set
	Dict  *Vector
}

type Span struct{ Off, Len uint32 }

func (v *Vector) At(i int) []byte {
	if v.Dict != nil {
		return v.Dict.At(int(v.Index[i]))
	}
	if v.Spans != nil {
		s := v.Spans[i]
		return v.Data[s.Off : s.Off+s.Len : s.Off+s.Len]
	}
	return v.Data[i*v.Width : (i+1)*v.Width : (i+1)*v.Width]
}

// Values reads n values of a page's data into v, whose memory is used
// again. v may point into src.
// width is of a value in bytes, 0 for BYTE_ARRAY.
func Values(v *Vector, kind parquet.Kind, width int, enc format.Encoding, src []byte, n int, dict *Vector) error {
	v.N, v.Width, v.Dict = n, width, nil
	v.Spans, v.Index = v.Spans[:0], v.Index[:0]
	isBytes := kind == parquet.ByteArray
	if isBytes && v.Spans == nil {
		v.Spans = make([]Span, 0, 16) // not nil: at tells by it
	}
	if !isBytes {
		v.Spans = nil
	}
	switch enc {
	case format.Plain:
		return v.plain(kind, src)
	//lint:ignore SA1019 older writers name it, so files have it
	case format.PlainDictionary, format.RLEDictionary:
		if dict == nil {
			return fmt.Errorf("dictionary-encoded page without a dictionary")
		}
		return v.dictionary(src, dict)
	case format.RLE:
		if kind == parquet.Boolean {
			return v.rleBool(src)
		}
	case format.DeltaBinaryPacked:
		if kind == parquet.Int32 || kind == parquet.Int64 {
			return v.delta(src)
		}
	case format.DeltaLengthByteArray:
		if isBytes {
			return v.deltaLength(src)
		}
	case format.DeltaByteArray:
		if isBytes || kind == parquet.FixedLenByteArray {
			return v.deltaByteArray(src)
		}
	case format.ByteStreamSplit:
		if !isBytes && kind != parquet.Boolean && kind != parquet.Int96 {
			return v.byteStreamSplit(src)
		}
	}
	return fmt.Errorf("encoding %s is not supported for %s", enc, kind)
}

func (v *Vector) plain(kind parquet.Kind, src []byte) error {
	if kind == parquet.Boolean {
		if len(src) < (v.N+7)/8 {
			return ErrShort(len(src), v.N)
		}
		v.Data = make([]byte, v.N)
		for i := range v.N {
			v.Data[i] = src[i/8] >> (i % 8) & 1
		}
		return nil
	}
	if kind != parquet.ByteArray {
		if v.Width > 0 && len(src)/v.Width < v.N {
			return ErrShort(len(src), v.N)
		}
		v.Data = src[:v.N*v.Width]
		return nil
	}
	if len(src)/4 < v.N {
		return ErrShort(len(src), v.N)
	}
	v.Data = src
	at := 0
	for range v.N {
		if len(src)-at < 4 {
			return ErrShort(len(src), v.N)
		}
		size := binary.LittleEndian.Uint32(src[at:])
		at += 4
		if uint64(size) > uint64(len(src)-at) {
			return ErrShort(len(src), v.N)
		}
		v.Spans = append(v.Spans, Span{uint32(at), size})
		at += int(size)
	}
	return nil
}

func ErrShort(have, n int) error { return fmt.Errorf("%d bytes end before its %d values do", have, n) }

func (v *Vector) dictionary(src []byte, dict *Vector) error {
	v.Dict = dict
	if cap(v.Index) < v.N {
		v.Index = make([]uint32, v.N)
	}
	v.Index = v.Index[:v.N]
	if v.N == 0 {
		return nil
	}
	if len(src) == 0 {
		return ErrShort(0, v.N)
	}
	if err := Hybrid(v.Index, src[1:], uint(src[0])); err != nil {
		return err
	}
	for _, i := range v.Index {
		if int64(i) >= int64(dict.N) {
			return fmt.Errorf("dictionary index %d of %d", i, dict.N)
		}
	}
	return nil
}

func (v *Vector) rleBool(src []byte) error {
	if len(src) < 4 || uint64(binary.LittleEndian.Uint32(src)) > uint64(len(src)-4) {
		return ErrShort(len(src), v.N)
	}
	v.Data = make([]byte, v.N)
	return Hybrid(v.Data, src[4:4+binary.LittleEndian.Uint32(src)], 1)
}

func (v *Vector) delta(src []byte) error {
	vals, _, err := deltaInts(src, v.N)
	if err != nil {
		return err
	}
	v.Data = make([]byte, 0, len(vals)*v.Width)
	for _, x := range vals {
		if v.Width == 4 { // deltas of int32 wrap in 32 bits
			v.Data = binary.LittleEndian.AppendUint32(v.Data, uint32(x))
		} else {
			v.Data = binary.LittleEndian.AppendUint64(v.Data, uint64(x))
		}
	}
	return nil
}

func (v *Vector) deltaLength(src []byte) error {
	lens, rest, err := deltaInts(src, v.N)
	if err != nil {
		return err
	}
	v.Data = rest
	at := int64(0)
	for _, n := range lens {
		if n < 0 || n > int64(len(rest))-at {
			return fmt.Errorf("a value of %d bytes in a page with %d left", n, int64(len(rest))-at)
		}
		v.Spans = append(v.Spans, Span{uint32(at), uint32(n)})
		at += n
	}
	return nil
}

func (v *Vector) deltaByteArray(src []byte) error {
	prefix, rest, err := deltaInts(src, v.N)
	if err != nil {
		return err
	}
	suffix, rest, err := deltaInts(rest, v.N)
	if err != nil {
		return err
	}
	// Sum first: prefixes can claim far more than the page's bytes.
	total, prev := int64(0), int64(0)
	for i := range prefix {
		if prefix[i] < 0 || prefix[i] > prev || suffix[i] < 0 || suffix[i] > MaxBytes {
			return fmt.Errorf("a prefix of %d bytes of a value of %d", prefix[i], prev)
		}
		prev = prefix[i] + suffix[i]
		if total += prev; total > MaxBytes {
			return fmt.Errorf("values expand to more than %d bytes", MaxBytes)
		}
		if v.Width > 0 && prev != int64(v.Width) {
			return fmt.Errorf("a value of %d bytes, not %d", prev, v.Width)
		}
	}
	out := make([]byte, 0, total)
	last := 0
	for i := range prefix {
		if suffix[i] > int64(len(rest)) {
			return ErrShort(len(src), v.N)
		}
		from := len(out)
		out = append(out, out[last:last+int(prefix[i])]...)
		out = append(out, rest[:suffix[i]]...)
		rest = rest[suffix[i]:]
		last = from
		if v.Width == 0 {
			v.Spans = append(v.Spans, Span{uint32(from), uint32(len(out) - from)})
		}
	}
	v.Data = out
	return nil
}

func (v *Vector) byteStreamSplit(src []byte) error {
	if v.Width > 0 && len(src)/v.Width < v.N {
		return ErrShort(len(src), v.N)
	}
	v.Data = make([]byte, v.N*v.Width)
	stride := 0
	if v.Width > 0 {
		stride = len(src) / v.Width
	}
	for i := range v.N {
		for k := range v.Width {
			v.Data[i*v.Width+k] = src[k*stride+i]
		}
	}
	return nil
}

// Hybrid fills dst from the RLE/bit-packed hybrid.
func Hybrid[T uint8 | uint32](dst []T, src []byte, width uint) error {
	if width > 32 {
		return fmt.Errorf("bit width %d", width)
	}
	if width == 0 {
		clear(dst)
		return nil
	}
	mask := uint64(1)<<width - 1
	for len(dst) > 0 {
		h, k := binary.Uvarint(src)
		if k <= 0 {
			return fmt.Errorf("run-length data ends %d values early", len(dst))
		}
		src = src[k:]
		if h&1 == 0 { // a run of one value
			n, size := h>>1, int(width+7)/8
			if len(src) < size {
				return fmt.Errorf("run-length data ends %d values early", len(dst))
			}
			x := uint64(0)
			for b := range size {
				x |= uint64(src[b]) << (8 * b)
			}
			src = src[size:]
			run := dst[:min(n, uint64(len(dst)))]
			for i := range run {
				run[i] = T(x)
			}
			dst = dst[len(run):]
			continue
		}
		// Bit-packed groups of 8. The last group may be cut short by some writers.
		groups := h >> 1
		n := len(dst)
		if groups < uint64(n+7)/8 {
			n = int(groups) * 8
		}
		if uint64(len(src))*8 < uint64(n)*uint64(width) {
			return fmt.Errorf("bit-packed data ends early: %d values of %d bits in %d bytes", n, width, len(src))
		}
		unpack(dst[:n], src, width, mask)
		dst = dst[n:]
		if used := groups * uint64(width); used < uint64(len(src)) {
			src = src[used:]
		} else {
			src = nil
		}
	}
	return nil
}

func unpack[T uint8 | uint32](dst []T, src []byte, width uint, mask uint64) {
	acc, have, at := uint64(0), uint(0), 0
	for i := range dst {
		for have < width {
			acc |= uint64(src[at]) << have
			at++
			have += 8
		}
		dst[i] = T(acc & mask)
		acc >>= width
		have -= width
	}
}

// deltaInts reads DELTA_BINARY_PACKED data that must hold n values and gives
// what follows it.
func deltaInts(src []byte, n int) ([]int64, []byte, error) {
	bad := func(what string) ([]int64, []byte, error) {
		return nil, nil, fmt.Errorf("delta-encoded data: %s", what)
	}
	var head [4]uint64
	for i := range head {
		x, k := binary.Uvarint(src)
		if k <= 0 {
			return bad("no header")
		}
		head[i], src = x, src[k:]
	}
	block, minis, total := head[0], head[1], head[2]
	first := int64(head[3]>>1) ^ -int64(head[3]&1)
	if block == 0 || block > 1<<16 || block%8 != 0 || minis == 0 || minis > block || block%minis != 0 ||
		block/minis%8 != 0 {
		return bad(fmt.Sprintf("blocks of %d values in %d parts", block, minis))
	}
	if total != uint64(n) {
		return bad(fmt.Sprintf("%d values, not %d", total, n))
	}
	if n == 0 {
		return nil, src, nil
	}
	// A block without any bits takes minis+2 bytes, so this bounds the claim.
	if uint64(n-1)/block > uint64(len(src)) {
		return bad("it ends early")
	}
	per := int(block / minis)
	vals := make([]int64, 1, n)
	vals[0] = first
	for len(vals) < n {
		m, k := binary.Uvarint(src)
		if k <= 0 || uint64(len(src)-k) < minis {
			return bad("it ends early")
		}
		minDelta := int64(m>>1) ^ -int64(m&1)
		widths := src[k : k+int(minis)]
		src = src[k+int(minis):]
		for _, w := range widths {
			if len(vals) == n {
				break
			}
			if w > 64 {
				return bad(fmt.Sprintf("bit width %d", w))
			}
			want := min(per, n-len(vals))
			need, full := (want*int(w)+7)/8, per*int(w)/8
			if len(src) < need {
				return bad("it ends early")
			}
			vals = unpackDeltas(vals, src, uint(w), want, minDelta)
			src = src[min(full, len(src)):]
		}
	}
	return vals, src, nil
}

func unpackDeltas(vals []int64, src []byte, width uint, n int, minDelta int64) []int64 {
	last := vals[len(vals)-1]
	bit := uint(0)
	for range n {
		x, got := uint64(0), uint(0)
		for got < width {
			b := uint64(src[bit/8]) >> (bit % 8)
			take := min(8-bit%8, width-got)
			x |= (b & (1<<take - 1)) << got
			got += take
			bit += take
		}
		last += minDelta + int64(x)
		vals = append(vals, last)
	}
	return vals
}

// LevelWidth is the bits that levels up to max take.
func LevelWidth(max uint8) uint { return uint(bits.Len8(max)) }

// MaxBytes bounds a page, compressed or not. A document lies in one page
// whole, so it bounds documents as well.
const MaxBytes = 1 << 30
