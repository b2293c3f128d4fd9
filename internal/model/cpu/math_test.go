package cpu

import (
	"math"
	"testing"
)

// inEverySet runs a test for each instruction set that the machine has.
func inEverySet(t *testing.T, name string, run func(t *testing.T, set string)) {
	for _, set := range Sets() {
		t.Run(name+"/"+set, func(t *testing.T) { run(t, set) })
	}
}

// TestFunctions holds the vector functions against float64 over all of float,
// in units of the last place where the result is a normal float.
func TestFunctions(t *testing.T) {
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	for _, f := range []struct {
		name string
		fn   int
		want func(float64) float64
		ulps float64 // measured: 1.0, 2.2, 2.6, 2.6
	}{
		{"exp", fnExp, math.Exp, 1.5},
		{"sigmoid", fnSigmoid, sigmoid, 3},
		{"silu", fnSilu, func(x float64) float64 { return x * sigmoid(x) }, 3},
		{"softplus", fnSoftplus, func(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) },
			3.5},
	} {
		inEverySet(t, f.name, func(t *testing.T, set string) {
			kernels, err := setNamed(set)
			if err != nil {
				t.Fatal(err)
			}
			var in []float32
			for x := -110.0; x < 95; x += 1e-3 {
				in = append(in, float32(x))
			}
			for e := -140; e < 127; e++ {
				in = append(in, float32(math.Ldexp(1.37, e)), float32(-math.Ldexp(1.37, e)))
			}
			in = append(in, 0, float32(math.Copysign(0, -1)), -800, -1e30, 1e30, math.MaxFloat32, -math.MaxFloat32)
			out := append([]float32(nil), in...)
			mapped(kernels, f.fn, out)
			worst, at := 0.0, float32(0)
			for i, x := range in {
				want := f.want(float64(x))
				got := float64(out[i])
				switch {
				case math.Abs(want) > math.MaxFloat32:
					if !math.IsInf(got, int(math.Copysign(1, want))) {
						t.Errorf("f(%g) = %g, want %g", x, got, want)
					}
				case math.Abs(want) < 0x1p-120: // a subnormal, or a silu or sigmoid whose e^-x overflows
					if !(math.Abs(got-want) < 0x1p-119) {
						t.Errorf("f(%g) = %g, want %g", x, got, want)
					}
				default:
					_, e := math.Frexp(want)
					if d := math.Abs(got-want) / math.Ldexp(1, e-24); !(d <= worst) {
						worst, at = d, x
					}
				}
			}
			t.Logf("%d values: worst %.2f ulp, at %g", len(in), worst, at)
			if !(worst <= f.ulps) {
				t.Errorf("f(%g) is off by %.2f ulp, more than %g", at, worst, f.ulps)
			}
			for _, n := range []int{1, 15, 16, 17, 33} { // a NaN stays and stays alone
				x := make([]float32, n)
				x[n-1] = float32(math.NaN())
				mapped(kernels, f.fn, x)
				for i, v := range x {
					if math.IsNaN(float64(v)) != (i == n-1) {
						t.Errorf("of %d values, with a NaN last: value %d is %g", n, i, v)
					}
				}
			}
		})
	}
}
