package quantile

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSelectionFindsAnyRank(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	special := []float64{0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.MaxFloat64, -math.MaxFloat64, 5e-324,
		1,
		1}
	for range 100 {
		vals := make([]float64, 1+r.IntN(200))
		for i := range vals {
			if vals[i] = special[r.IntN(len(special))]; r.IntN(2) == 0 {
				vals[i] = r.NormFloat64() * math.Pow(10, float64(r.IntN(9)-4))
			}
		}
		sorted := slices.Clone(vals)
		slices.Sort(sorted)
		k := int64(r.IntN(len(vals)))
		s := &Pass{most: r.IntN(20), buckets: map[prefix]*bucket{}}
		e := end{r: k}
		for !e.found {
			for _, x := range vals {
				s.add(0, 0, x)
			}
			next := map[prefix]*bucket{}
			s.look(&e, next)
			s.narrow(next)
		}
		if e.value != sorted[k] {
			t.Fatalf("rank %d is %v, want %v", k, e.value, sorted[k])
		}
	}
}

// TestNth: whatever the order, and however often it is asked.
func TestNth(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range 400 {
		vals := make([]uint64, 1+n*n/40)
		for i := range vals {
			switch n % 4 {
			case 0:
				vals[i] = r.Uint64()
			case 1:
				vals[i] = r.Uint64N(5) // few
			case 2:
				vals[i] = uint64(min(i, len(vals)-i)) // up and down
			default:
				vals[i] = uint64(len(vals) - i)
			}
		}
		sorted := slices.Sorted(slices.Values(vals))
		b := &bucket{values: vals}
		for range 2 * manyLooks {
			k := r.IntN(len(vals))
			if got := b.rank(int64(k)); got != sorted[k] {
				t.Fatalf("rank %d of %d values is %d, want %d", k, len(vals), got, sorted[k])
			}
		}
		if !slices.Equal(slices.Sorted(slices.Values(b.values)), sorted) {
			t.Fatal("values were lost")
		}
	}
}
