package curate

import (
	"context"
	"maps"
	"math"
	"math/bits"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/curate/where"
	"surprisal/internal/shard"
)

// heldValues is how many values are kept in memory to be sorted; of more, each
// pass narrows the ranges that the wanted ranks lie in by 16 bits, so that at
// most 4 passes over the scores give the exact values, whatever their number.
const heldValues = 1 << 24

// sortable maps floats to integers of the same order. x is no NaN.
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

// prefix is the values of a column in a group that begin with the same bits.
type prefix struct {
	column, group int
	bits          uint64 // the first 16·depth bits, at the right
}

// bucket is what one pass learns of a prefix: its values, or how many begin
// with which 16 bits more.
type bucket struct {
	n      int64
	values []uint64
	counts *counts
	looks  int // for values by rank
}

// manyLooks for values by rank are worth sorting them.
const manyLooks = 6

// rank gives the value that r others go before in order.
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
		if rounds == 0 { // the pivots are bad ones
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

// counts tells how many values go on with which 16 bits: in a table where there
// are few of them to be had, else in a map.
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

// keys are those that were added, in order.
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

// selection finds values by rank in passes.
type selection struct {
	mu      sync.Mutex
	depth   int
	held    int // values in memory
	most    int
	buckets map[prefix]*bucket
	last    prefix // of the value before, which many have
	lastOf  *bucket
	known   bool // last is set
}

// add takes a value in; the caller holds mu.
func (s *selection) add(column, group int, x float64) {
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
func (s *selection) spill() {
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

// end is a value that is looked for: rank r among the values of a prefix.
type end struct {
	at    prefix
	r     int64
	found bool
	value float64
}

// look takes an end's value from what the last pass held, or narrows its prefix
// and lists that in next.
func (s *selection) look(e *end, next map[prefix]*bucket) {
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

// narrow begins another pass, over the prefixes in next.
func (s *selection) narrow(next map[prefix]*bucket) {
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

// thresholds computes percentiles of columns for each group: [percentile][group],
// NaN where the group has no value.
func (c *Corpus) thresholds(ctx context.Context, g *groups, want []where.Percentile, kinds map[string]shard.Kind, most int) ([][]float64, error) {
	if len(want) == 0 {
		return nil, nil
	}
	var columns []string
	for _, w := range want {
		columns = union(columns, []string{w.Column})
	}
	s := &selection{most: most, buckets: map[prefix]*bucket{}}
	if err := c.pass(ctx, s, g, columns, kinds); err != nil {
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
		out[i] = slices.Repeat([]float64{math.NaN()}, g.len())
		for k := range g.len() {
			at := prefix{slices.Index(columns, w.Column), k, 0}
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
		if err := c.pass(ctx, s, g, columns, kinds); err != nil {
			return nil, err
		}
	}
	for _, t := range open {
		out[t.percentile][t.group] = lerp(t.lo.value, t.hi.value, t.t)
	}
	return out, nil
}

// passBatch is how many rows' values are gathered before they are added together.
const passBatch = 1 << 16

// gathered is values of one column on their way.
type gathered struct {
	groups []int
	values []float64
}

// addAll takes gathered values in, and empties them.
func (s *selection) addAll(columns []gathered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range columns {
		c := &columns[k]
		for i, x := range c.values {
			s.add(k, c.groups[i], x)
		}
		c.groups, c.values = c.groups[:0], c.values[:0]
	}
}

// pass shows s every value of the columns.
func (c *Corpus) pass(ctx context.Context, s *selection, g *groups, columns []string, kinds map[string]shard.Kind) error {
	names := union(g.by, columns)
	return c.EachFile(ctx, func(ctx context.Context, f *File) error {
		r, rows := g.grouper(), 0
		got := make([]gathered, len(columns))
		err := c.Scan(ctx, f, names, kinds, func(_ int64, n int, v []*shard.Values) error {
			group, err := r.rows(n, v[:len(g.by)])
			if err != nil {
				return err
			}
			for k, name := range columns {
				v, to := v[slices.Index(names, name)], &got[k]
				for i := range n {
					if v.Null[i] {
						continue
					}
					x := 0.0
					if v.Kind == shard.Float {
						x = v.Floats[i]
					} else {
						x = float64(v.Ints[i])
					}
					if !math.IsNaN(x) {
						to.groups, to.values = append(to.groups, group[i]), append(to.values, x)
					}
				}
			}
			if rows += n; rows >= passBatch {
				rows = 0
				s.addAll(got)
			}
			return nil
		})
		s.addAll(got)
		return err
	})
}

// EachFile calls do for each file, as many at once as there are cores.
func (c *Corpus) EachFile(ctx context.Context, do func(context.Context, *File) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cores())
	for i := range c.Files {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(ctx, &c.Files[i]) })
	}
	return g.Wait()
}

func percentiles(column string, p []float64) []where.Percentile {
	w := make([]where.Percentile, len(p))
	for i := range p {
		w[i] = where.Percentile{Column: column, P: p[i]}
	}
	return w
}
