package shard

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

// Has tells whether row is in it.
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

// run gives the next run of rows in [from, to) that are in it: [a, b), empty at
// to when there is none.
func (b *Bitmap) run(from, to int64) (start, end int64) {
	start = from
	for start < to && !b.Has(start) {
		if start&63 == 0 && (start>>6 >= int64(len(b.words)) || b.words[start>>6] == 0) {
			start += 64
			continue
		}
		start++
	}
	start = min(start, to)
	end = start
	for end < to && b.Has(end) {
		if end&63 == 0 && b.words[end>>6] == ^uint64(0) {
			end += 64
			continue
		}
		end++
	}
	return start, min(end, to)
}
