package pq

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// vector is a page's values (or a dictionary's), each a run of bytes: of a
// fixed width, little-endian as PLAIN has it (a bool is one byte), or of its
// own length. Decoding checks every bound, so that at can't fail.
type vector struct {
	n     int
	width int // 0: spans are used
	data  []byte
	spans []span
	index []uint32 // into dict, when dict is set
	dict  *vector
}

type span struct{ off, len uint32 }

func (v *vector) at(i int) []byte {
	if v.dict != nil {
		return v.dict.at(int(v.index[i]))
	}
	if v.spans != nil {
		s := v.spans[i]
		return v.data[s.off : s.off+s.len : s.off+s.len]
	}
	return v.data[i*v.width : (i+1)*v.width : (i+1)*v.width]
}

func kindWidth(l *Leaf) int {
	switch l.Kind {
	case parquet.Boolean:
		return 1
	case parquet.Int32, parquet.Float:
		return 4
	case parquet.Int64, parquet.Double:
		return 8
	case parquet.Int96:
		return 12
	case parquet.FixedLenByteArray:
		return l.fixedLen
	}
	return 0
}

// decodeValues reads n values of a page's data into v, whose memory is used
// again. v may point into src.
func decodeValues(v *vector, l *Leaf, enc format.Encoding, src []byte, n int, dict *vector) error {
	v.n, v.width, v.dict = n, kindWidth(l), nil
	v.spans, v.index = v.spans[:0], v.index[:0]
	isBytes := l.Kind == parquet.ByteArray
	if isBytes && v.spans == nil {
		v.spans = make([]span, 0, 16) // not nil: at tells by it
	}
	if !isBytes {
		v.spans = nil
	}
	switch enc {
	case format.Plain:
		return v.plain(l, src)
	//lint:ignore SA1019 older writers name it, so files have it
	case format.PlainDictionary, format.RLEDictionary:
		if dict == nil {
			return fmt.Errorf("dictionary-encoded page without a dictionary")
		}
		return v.dictionary(src, dict)
	case format.RLE:
		if l.Kind == parquet.Boolean {
			return v.rleBool(src)
		}
	case format.DeltaBinaryPacked:
		if l.Kind == parquet.Int32 || l.Kind == parquet.Int64 {
			return v.delta(src)
		}
	case format.DeltaLengthByteArray:
		if isBytes {
			return v.deltaLength(src)
		}
	case format.DeltaByteArray:
		if isBytes || l.Kind == parquet.FixedLenByteArray {
			return v.deltaByteArray(src)
		}
	case format.ByteStreamSplit:
		if !isBytes && l.Kind != parquet.Boolean && l.Kind != parquet.Int96 {
			return v.byteStreamSplit(src)
		}
	}
	return fmt.Errorf("encoding %s is not supported for %s", enc, l.Kind)
}

func (v *vector) plain(l *Leaf, src []byte) error {
	if l.Kind == parquet.Boolean {
		if len(src) < (v.n+7)/8 {
			return errShort(len(src), v.n)
		}
		v.data = make([]byte, v.n)
		for i := range v.n {
			v.data[i] = src[i/8] >> (i % 8) & 1
		}
		return nil
	}
	if l.Kind != parquet.ByteArray {
		if v.width > 0 && len(src)/v.width < v.n {
			return errShort(len(src), v.n)
		}
		v.data = src[:v.n*v.width]
		return nil
	}
	if len(src)/4 < v.n {
		return errShort(len(src), v.n)
	}
	v.data = src
	at := 0
	for range v.n {
		if len(src)-at < 4 {
			return errShort(len(src), v.n)
		}
		size := binary.LittleEndian.Uint32(src[at:])
		at += 4
		if uint64(size) > uint64(len(src)-at) {
			return errShort(len(src), v.n)
		}
		v.spans = append(v.spans, span{uint32(at), size})
		at += int(size)
	}
	return nil
}

func errShort(have, n int) error { return fmt.Errorf("%d bytes end before its %d values do", have, n) }

func (v *vector) dictionary(src []byte, dict *vector) error {
	v.dict = dict
	if cap(v.index) < v.n {
		v.index = make([]uint32, v.n)
	}
	v.index = v.index[:v.n]
	if v.n == 0 {
		return nil
	}
	if len(src) == 0 {
		return errShort(0, v.n)
	}
	if err := hybrid(v.index, src[1:], uint(src[0])); err != nil {
		return err
	}
	for _, i := range v.index {
		if int64(i) >= int64(dict.n) {
			return fmt.Errorf("dictionary index %d of %d", i, dict.n)
		}
	}
	return nil
}

func (v *vector) rleBool(src []byte) error {
	if len(src) < 4 || uint64(binary.LittleEndian.Uint32(src)) > uint64(len(src)-4) {
		return errShort(len(src), v.n)
	}
	v.data = make([]byte, v.n)
	return hybrid(v.data, src[4:4+binary.LittleEndian.Uint32(src)], 1)
}

func (v *vector) delta(src []byte) error {
	vals, _, err := deltaInts(src, v.n)
	if err != nil {
		return err
	}
	v.data = make([]byte, 0, len(vals)*v.width)
	for _, x := range vals {
		if v.width == 4 { // deltas of int32 wrap in 32 bits
			v.data = binary.LittleEndian.AppendUint32(v.data, uint32(x))
		} else {
			v.data = binary.LittleEndian.AppendUint64(v.data, uint64(x))
		}
	}
	return nil
}

func (v *vector) deltaLength(src []byte) error {
	lens, rest, err := deltaInts(src, v.n)
	if err != nil {
		return err
	}
	v.data = rest
	at := int64(0)
	for _, n := range lens {
		if n < 0 || n > int64(len(rest))-at {
			return fmt.Errorf("a value of %d bytes in a page with %d left", n, int64(len(rest))-at)
		}
		v.spans = append(v.spans, span{uint32(at), uint32(n)})
		at += n
	}
	return nil
}

func (v *vector) deltaByteArray(src []byte) error {
	prefix, rest, err := deltaInts(src, v.n)
	if err != nil {
		return err
	}
	suffix, rest, err := deltaInts(rest, v.n)
	if err != nil {
		return err
	}
	// Sum first: prefixes can claim far more than the page's bytes.
	total, prev := int64(0), int64(0)
	for i := range prefix {
		if prefix[i] < 0 || prefix[i] > prev || suffix[i] < 0 || suffix[i] > maxPageBytes {
			return fmt.Errorf("a prefix of %d bytes of a value of %d", prefix[i], prev)
		}
		prev = prefix[i] + suffix[i]
		if total += prev; total > maxPageBytes {
			return fmt.Errorf("values expand to more than %d bytes", maxPageBytes)
		}
		if v.width > 0 && prev != int64(v.width) {
			return fmt.Errorf("a value of %d bytes, not %d", prev, v.width)
		}
	}
	out := make([]byte, 0, total)
	last := 0
	for i := range prefix {
		if suffix[i] > int64(len(rest)) {
			return errShort(len(src), v.n)
		}
		from := len(out)
		out = append(out, out[last:last+int(prefix[i])]...)
		out = append(out, rest[:suffix[i]]...)
		rest = rest[suffix[i]:]
		last = from
		if v.width == 0 {
			v.spans = append(v.spans, span{uint32(from), uint32(len(out) - from)})
		}
	}
	v.data = out
	return nil
}

func (v *vector) byteStreamSplit(src []byte) error {
	if v.width > 0 && len(src)/v.width < v.n {
		return errShort(len(src), v.n)
	}
	v.data = make([]byte, v.n*v.width)
	stride := 0
	if v.width > 0 {
		stride = len(src) / v.width
	}
	for i := range v.n {
		for k := range v.width {
			v.data[i*v.width+k] = src[k*stride+i]
		}
	}
	return nil
}

// hybrid fills dst from the RLE/bit-packed hybrid.
func hybrid[T uint8 | uint32](dst []T, src []byte, width uint) error {
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
	if block == 0 || block > 1<<16 || block%8 != 0 || minis == 0 || minis > block || block%minis != 0 || block/minis%8 != 0 {
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

// levelWidth is the bits that levels up to max take.
func levelWidth(max uint8) uint { return uint(bits.Len8(max)) }
