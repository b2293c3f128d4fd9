package quantile

import (
	"maps"
	"math"
	"math/bits"
	"slices"
	"sync"
)

// Held is how many values are kept in memory by default: 128 MiB. Of more, each pass
// narrows the ranges that contain the wanted ranks by 16 bits, so at most 4 passes
// give the exact values, however many there are.
const Held = 1 << 24

// sortable maps floats to integers of the same order. x must not be NaN.
func sortable(x float64) uint64 {
	u := math.Float64bits(x + 0) // -0 is 0
	if u>>63 == 1 {
		return ^u
	}
	return u | 1<<63
}

func unsortable(u uint64) float64 {
	if u>>63 == 1 {
		return math.Float64frombits(u &^ (1 << 63))
	}
	return math.Float64frombits(^u)
}

// lerp is the percentile between two neighbours, as NumPy computes it.
func lerp(a, b, t float64) float64 {
	if a == b {
		return a // infinities too
	}
	d := b - a
	if t >= .5 {
		return b - d*(1-t)
	}
	return a + d*t
}

// rank gives the neighbours' ranks for a percentile of n values.
func rank(n int64, p float64) (lo int64, t float64) {
	at := float64(n-1) * (p / 100)
	lo = int64(math.Floor(at))
	return lo, at - float64(lo)
}

// prefix is the values of a column in a group that have the same leading bits.
type prefix struct {
	column, group int
	bits          uint64 // the first 16·depth bits, at the right
}

// bucket is the result of one pass for a prefix: its values, or how many values there
// are for each of the next 16 bits.
type bucket struct {
	n      int64
	values []uint64
	counts *counts
	looks  int // for values by rank
}

// manyLooks is the number of look-ups from which sorting is cheaper than selecting.
const manyLooks = 6

// rank gives the value of rank r, counted from 0.
func (b *bucket) rank(r int64) uint64 {
	if b.looks++; b.looks == manyLooks {
		slices.Sort(b.values)
	}
	if b.looks < manyLooks {
		nth(b.values, int(r))
	}
	return b.values[r]
}

// nth puts the value of rank r where it would be if v were sorted.
func nth(v []uint64, r int) {
	for rounds := 2 * bits.Len(uint(len(v))); len(v) > 32; rounds-- {
		if rounds == 0 { // bad pivots
			break
		}
		a, b, c := v[0], v[len(v)/2], v[len(v)-1]
		pivot := max(min(a, b), min(max(a, b), c))
		i, j := 0, len(v)-1
		for i <= j {
			for v[i] < pivot {
				i++
			}
			for v[j] > pivot {
				j--
			}
			if i <= j {
				v[i], v[j] = v[j], v[i]
				i, j = i+1, j-1
			}
		}
		switch {
		case r <= j:
			v = v[:j+1]
		case r >= i:
			v, r = v[i:], r-i
		default: // those between are the pivot
			return
		}
	}
	slices.Sort(v)
}

// counts is the number of values for each of the next 16 bits: a table where there are
// few buckets, else a map.
type counts struct {
	table []int64
	some  map[uint16]int64
}

// maxTables bounds the memory of tables, of 512 KiB each.
const maxTables = 64

func newCounts(buckets int) *counts {
	if buckets <= maxTables {
		return &counts{table: make([]int64, 1<<16)}
	}
	return &counts{some: map[uint16]int64{}}
}

func (c *counts) add(k uint16) {
	if c.table != nil {
		c.table[k]++
	} else {
		c.some[k]++
	}
}

// keys lists the keys with values, in order.
func (c *counts) keys() []uint16 {
	keys := slices.Sorted(maps.Keys(c.some))
	for k, n := range c.table {
		if n > 0 {
			keys = append(keys, uint16(k))
		}
	}
	return keys
}

func (c *counts) of(k uint16) int64 {
	if c.table != nil {
		return c.table[k]
	}
	return c.some[k]
}

// Pass takes the values of one pass over the data, from any number of goroutines.
type Pass struct {
	mu      sync.Mutex
	depth   int
	held    int // values in memory
	most    int
	buckets map[prefix]*bucket
	last    prefix // of the previous value; often the next one has it too
	lastOf  *bucket
	known   bool // last is set
}

// add takes one value; the caller holds mu.
func (s *Pass) add(column, group int, x float64) {
	u := sortable(x)
	p := prefix{column, group, 0}
	if s.depth > 0 {
		p.bits = u >> (64 - 16*s.depth)
	}
	if !s.known || p != s.last {
		s.last, s.lastOf, s.known = p, s.buckets[p], true
	}
	b := s.lastOf
	if b == nil {
		if s.depth > 0 {
			return
		}
		b = &bucket{}
		s.buckets[p], s.lastOf = b, b
	}
	b.n++
	if b.counts != nil {
		b.counts.add(uint16(u >> (48 - 16*s.depth)))
		return
	}
	b.values = append(b.values, u)
	if s.held++; s.held > s.most {
		s.spill()
	}
}

// spill turns all values into counts.
func (s *Pass) spill() {
	for _, b := range s.buckets {
		if b.counts == nil {
			b.counts = newCounts(len(s.buckets))
			for _, u := range b.values {
				b.counts.add(uint16(u >> (48 - 16*s.depth)))
			}
			b.values = nil
		}
	}
	s.held = 0
}

// end is a wanted value: rank r among the values of a prefix.
type end struct {
	at    prefix
	r     int64
	found bool
	value float64
}

// look takes an end's value from what the last pass kept, or narrows its prefix and
// adds that to next.
func (s *Pass) look(e *end, next map[prefix]*bucket) {
	if e.found {
		return
	}
	b := s.buckets[e.at]
	if b.counts == nil {
		e.found, e.value = true, unsortable(b.rank(e.r))
		return
	}
	for _, k := range b.counts.keys() {
		n := b.counts.of(k)
		if e.r >= n {
			e.r -= n
			continue
		}
		e.at.bits = e.at.bits<<16 | uint64(k)
		if s.depth == 3 { // every bit is known
			e.found, e.value = true, unsortable(e.at.bits)
		} else if next[e.at] == nil {
			next[e.at] = &bucket{n: n}
		}
		return
	}
}

// narrow prepares another pass, over the prefixes in next.
func (s *Pass) narrow(next map[prefix]*bucket) {
	s.depth++
	s.held, s.buckets, s.known = 0, next, false
	room := int64(s.most)
	for _, b := range next {
		if b.n <= room {
			room -= b.n // few enough to be held
		} else {
			b.counts = newCounts(len(next))
		}
		b.n = 0
	}
}

// Values are values of one column on their way to a pass: each with its group, and
// none of them NaN.
type Values struct {
	Groups []int
	Values []float64
}

// Add appends a value.
func (v *Values) Add(group int, x float64) {
	v.Groups, v.Values = append(v.Groups, group), append(v.Values, x)
}

// Batch is how many rows to gather before they are added together: Add takes a lock.
const Batch = 1 << 16

// Add takes the values of all columns, by index, and empties them.
func (s *Pass) Add(columns []Values) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range columns {
		c := &columns[k]
		for i, x := range c.Values {
			s.add(k, c.Groups[i], x)
		}
		c.Groups, c.Values = c.Groups[:0], c.Values[:0]
	}
}

// Percentile is a wanted percentile of a column.
type Percentile struct {
	Column int
	P      float64 // 0 to 100
}

// Find computes percentiles for each group: [percentile][group], NaN where a group has
// no value. pass adds every value of the data, the same each time. groups gives the
// number of groups after the first pass. held is Held outside tests.
func Find(want []Percentile, held int, groups func() int, pass func(*Pass) error) ([][]float64, error) {
	s := &Pass{most: held, buckets: map[prefix]*bucket{}}
	if err := pass(s); err != nil {
		return nil, err
	}
	type target struct {
		percentile, group int
		t                 float64
		lo, hi            end
	}
	out := make([][]float64, len(want))
	var open []*target
	for i, w := range want {
		out[i] = slices.Repeat([]float64{math.NaN()}, groups())
		for k := range groups() {
			at := prefix{w.Column, k, 0}
			if b := s.buckets[at]; b != nil {
				lo, t := rank(b.n, w.P)
				open = append(open, &target{i, k, t, end{at: at, r: lo}, end{at: at, r: min(lo+1, b.n-1)}})
			}
		}
	}
	for {
		next := map[prefix]*bucket{}
		for _, t := range open {
			s.look(&t.lo, next)
			s.look(&t.hi, next)
		}
		if len(next) == 0 {
			break
		}
		s.narrow(next)
		if err := pass(s); err != nil {
			return nil, err
		}
	}
	for _, t := range open {
		out[t.percentile][t.group] = lerp(t.lo.value, t.hi.value, t.t)
	}
	return out, nil
}
