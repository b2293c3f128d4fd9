package pq

import "math/bits"

// Bitmap is a set of rows of a file, a bit a row. The zero value is empty.
type Bitmap struct {
	words []uint64
}

// Set adds a row.
func (b *Bitmap) Set(row int64) {
	w := int(row >> 6)
	for len(b.words) <= w {
		b.words = append(b.words, 0)
	}
	b.words[w] |= 1 << (row & 63)
}

// Has reports whether row is in it.
func (b *Bitmap) Has(row int64) bool {
	w := int(row >> 6)
	return w < len(b.words) && b.words[w]>>(row&63)&1 == 1
}

// Count counts the rows from, from+1 … to-1 that are in it.
func (b *Bitmap) Count(from, to int64) int64 {
	to = min(to, int64(len(b.words))<<6)
	if from >= to {
		return 0
	}
	first, last := from>>6, (to-1)>>6
	lo, hi := ^uint64(0)<<(from&63), ^uint64(0)>>(63-(to-1)&63)
	if first == last {
		return int64(bits.OnesCount64(b.words[first] & lo & hi))
	}
	n := bits.OnesCount64(b.words[first]&lo) + bits.OnesCount64(b.words[last]&hi)
	for _, w := range b.words[first+1 : last] {
		n += bits.OnesCount64(w)
	}
	return int64(n)
}

// Run gives the next run of rows in [from, to) that are in it: [a, b), empty at
// to when there is none.
func (b *Bitmap) Run(from, to int64) (start, end int64) {
	start = b.next(from, to, 0)
	return start, b.next(start, to, ^uint64(0))
}

// next gives the first row of [from, to) that is in it, or that is not when flip is
// all ones; to when there is none.
func (b *Bitmap) next(from, to int64, flip uint64) int64 {
	for from < to {
		w := flip
		if i := from >> 6; i < int64(len(b.words)) {
			w ^= b.words[i]
		}
		if w >>= from & 63; w != 0 {
			return min(from+int64(bits.TrailingZeros64(w)), to)
		}
		from = from&^63 + 64
	}
	return to
}
