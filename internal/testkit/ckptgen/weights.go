package ckptgen

import (
	"encoding/binary"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"

	"surprisal/internal/model"
)

// chunkLen elements are drawn from one stream of random numbers, so that the
// weights do not depend on the number of cores.
const chunkLen = 1 << 20

// writeWeights writes tensor i's elements, little-endian.
func writeWeights(w io.Writer, s model.TensorShape, o Options, i uint64) error {
	n, width := s.Len(), o.DType.Size()
	draw := distribution(s)
	bufs := make([][]byte, runtime.GOMAXPROCS(0))
	for lo := 0; lo < n; {
		var wg sync.WaitGroup
		used := 0
		for b := range bufs {
			if lo >= n {
				break
			}
			m := min(chunkLen, n-lo)
			if cap(bufs[b]) < m*width {
				bufs[b] = make([]byte, m*width)
			}
			buf := bufs[b][:m*width]
			bufs[b] = buf
			rng := rand.New(rand.NewPCG(o.Seed, i<<32|uint64(lo/chunkLen)))
			wg.Go(func() { fill(buf, o.DType, rng, draw) })
			lo += m
			used++
		}
		wg.Wait()
		for _, b := range bufs[:used] {
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
	}
	return nil
}

func fill(buf []byte, d model.DType, rng *rand.Rand, draw func(*rand.Rand) float64) {
	for w := d.Size(); len(buf) >= w; buf = buf[w:] {
		x := draw(rng)
		u := math.Float32bits(float32(x))
		switch d {
		case model.BFloat16:
			binary.LittleEndian.PutUint16(buf, uint16((u+0x7fff+u>>16&1)>>16))
		case model.Float16:
			binary.LittleEndian.PutUint16(buf, half(x))
		case model.Float64:
			binary.LittleEndian.PutUint64(buf, math.Float64bits(x))
		default:
			binary.LittleEndian.PutUint32(buf, u)
		}
	}
}

// half is x cut to an IEEE half, within whose range it is.
func half(x float64) uint16 {
	sign := uint16(0)
	if x < 0 {
		sign, x = 1<<15, -x
	}
	if x < 0x1p-14 {
		return sign | uint16(x*0x1p24)
	}
	fraction, exponent := math.Frexp(x)
	return sign | uint16(exponent+14)<<10 + uint16((2*fraction-1)*1024)
}

// distribution of a tensor's elements, by its name.
func distribution(s model.TensorShape) func(*rand.Rand) float64 {
	normal := func(mean, sd float64) func(*rand.Rand) float64 {
		return func(r *rand.Rand) float64 { return mean + sd*r.NormFloat64() }
	}
	is := func(suffix string) bool { return strings.HasSuffix(s.Name, suffix) }
	switch {
	case is("norm_1.weight"), is("norm_2.weight"), is("o_norm.weight"), is("ln_f.weight"):
		return normal(1, 0.2)
	case is("A_log"): // decays' rates within 1 and 16
		return func(r *rand.Rand) float64 { return math.Log(1 + 15*r.Float64()) }
	case is("dt_bias"): // softplus(dt_bias) log-uniform within 0.001 and 0.1
		return func(r *rand.Rand) float64 {
			dt := math.Exp(math.Log(0.001) + r.Float64()*math.Log(100))
			return dt + math.Log(-math.Expm1(-dt))
		}
	case is("conv1d.weight"):
		return normal(0, 0.5)
	case is(".bias"):
		return normal(0, 0.3)
	case is("wte.weight"):
		return normal(0, 0.7)
	}
	return normal(0, 1.4/math.Sqrt(float64(s.Shape[len(s.Shape)-1])))
}
