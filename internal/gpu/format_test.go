//go:build cuda

package gpu

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// format is a floating-point type of 16 bits.
type format struct {
	fraction, bias int
	values         [1 << 16]float64
}

var (
	fp16 = sync.OnceValue(func() *format { return newFormat(10, 15) })
	bf16 = sync.OnceValue(func() *format { return newFormat(7, 127) })
)

// activations are fp16, or bf16 in a build for measurements.
var activations = sync.OnceValue(func() *format {
	if precision() == "bf16" {
		return bf16()
	}
	return fp16()
})

func newFormat(fraction, bias int) *format {
	f := &format{fraction: fraction, bias: bias}
	for u := range f.values {
		e, m := u&0x7fff>>fraction, float64(u&(1<<fraction-1))
		v := math.Ldexp(m, 1-bias-fraction)
		switch {
		case e == 0x7fff>>fraction && m != 0:
			v = math.NaN()
		case e == 0x7fff>>fraction:
			v = math.Inf(1)
		case e > 0:
			v = math.Ldexp(m+float64(int(1)<<fraction), e-bias-fraction)
		}
		if u>>15 == 1 {
			v = -v
		}
		f.values[u] = v
	}
	return f
}

// roundoff is half a unit in the last place, relative.
func (f *format) roundoff() float64 { return math.Ldexp(1, -f.fraction-1) }

// max is the largest number.
func (f *format) max() float64 { return f.values[0x7fff>>f.fraction<<f.fraction-1] }

func (f *format) decode(raw []uint16) []float64 {
	v := make([]float64, len(raw))
	for i, u := range raw {
		v[i] = f.values[u]
	}
	return v
}

// encode rounds to nearest even; what is beyond the largest number is infinite.
func (f *format) encode(v []float64) []uint16 {
	raw := make([]uint16, len(v))
	for i, x := range v {
		raw[i] = f.nearest(x)
	}
	return raw
}

func (f *format) nearest(x float64) uint16 {
	inf := uint16(0x7fff >> f.fraction << f.fraction)
	u := inf
	switch a := math.Abs(x); {
	case math.IsNaN(x):
		return inf | 1
	case a <= 2*f.max():
		e := 1 - f.bias
		if a > 0 {
			e = max(e, math.Ilogb(a))
		}
		// The fraction's carry goes into the exponent, as it should.
		u = min(inf, uint16((e+f.bias-1)<<f.fraction+int(math.RoundToEven(math.Ldexp(a, f.fraction-e)))))
	}
	if math.Signbit(x) {
		u |= 0x8000
	}
	return u
}

// TestFormat: every number is its own nearest, and what lies between goes to the
// nearer.
func TestFormat(t *testing.T) {
	for _, f := range []*format{fp16(), bf16()} {
		for u, v := range f.values {
			if math.IsNaN(v) {
				continue
			}
			if got := f.nearest(v); int(got) != u {
				t.Fatalf("%x is %v, whose nearest is %x", u, v, got)
			}
			if up := f.values[(u+1)&0xffff]; !math.IsInf(v, 0) && !math.IsInf(up, 0) && u != 0x7fff {
				if got := f.nearest(v + 0.49*(up-v)); int(got) != u {
					t.Fatalf("just above %x: nearest is %x", u, got)
				}
			}
		}
	}
	if fp16().values[0x3c01] != 1+0x1p-10 || fp16().max() != 65504 || bf16().values[0x3f81] != 1+0x1p-7 {
		t.Fatal("not the formats' values")
	}
}

// inParallel calls f with 0 to n-1 on all processors and waits.
func inParallel(n int, f func(i int)) {
	var next atomic.Int64
	var g sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		g.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	g.Wait()
}
