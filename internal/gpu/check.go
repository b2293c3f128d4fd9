//go:build cuda

package gpu

import (
	"fmt"
	"math"
	"time"

	"surprisal/internal/model"
	"surprisal/internal/score"
)

func (c Config) withDefaults(m model.Config) Config {
	if c.QueryScale == 0 {
		c.QueryScale = 1 / math.Sqrt(float64(m.K))
	}
	if c.Took == nil {
		c.Took = func(string, time.Duration) {}
	}
	return c
}

func (c Config) validate() error {
	switch {
	case math.IsNaN(c.QueryScale) || math.IsInf(c.QueryScale, 0) || c.QueryScale < 0:
		return fmt.Errorf("query scale %v is not a positive number", c.QueryScale)
	case c.MaxTokens != 0 && (c.MaxTokens < score.SplitMultiple || c.MaxTokens > maxMaxTokens ||
		c.MaxTokens%score.SplitMultiple != 0):
		return fmt.Errorf("a batch of %d tokens is not a multiple of %d up to %d", c.MaxTokens, score.SplitMultiple,
			maxMaxTokens)
	case c.Precision != "" && c.Precision != "fp16" && c.Precision != "int8":
		return fmt.Errorf("precision %q is neither fp16 nor int8", c.Precision)
	case c.Device < 0:
		return fmt.Errorf("GPU %d is not a device", c.Device)
	}
	return nil
}

// columns is the first column of each projection in the fused one, and the total
// width, padded to a multiple of 16 so that rows are 16-byte aligned.
type columns struct{ q, k, v, b, w, f, g, eta, total int }

func columnsOf(c model.Config) columns {
	kd, vd := c.Heads*c.K, c.VHeads*c.V
	o := columns{q: 0, k: kd, v: 2 * kd, b: 2*kd + vd, w: 3*kd + vd, f: 3*kd + 2*vd, g: 3*kd + 2*vd + c.V,
		eta: 3*kd + 2*vd + 2*c.V}
	o.total = o.eta
	if c.Kaczmarz {
		o.total += c.Heads
	}
	o.total = roundUp(o.total, 16)
	return o
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// supported returns an error for a model shape that the kernels do not support.
func supported(m model.Config) error {
	is := func(v int, of ...int) bool {
		for _, o := range of {
			if v == o {
				return true
			}
		}
		return false
	}
	switch {
	case !is(m.K, 64, 128):
		return fmt.Errorf("%w key heads of width %d, only 64 and 128: use --engine cpu", ErrUnsupported, m.K)
	case !is(m.V, 64, 128, 256):
		return fmt.Errorf("%w value heads of width %d, only 64, 128 and 256: use --engine cpu", ErrUnsupported, m.V)
	case m.ShortConv && m.ConvSize > taps:
		return fmt.Errorf("%w short convolutions of %d taps, only up to %d: use --engine cpu", ErrUnsupported,
			m.ConvSize, taps)
	case m.Heads*m.K >= maxHeadsWidth || m.VHeads*m.V >= maxHeadsWidth:
		return fmt.Errorf("%w heads of %d and %d channels together, only less than %d: use --engine cpu",
			ErrUnsupported, m.Heads*m.K, m.VHeads*m.V, maxHeadsWidth)
	case m.Width%8 != 0 || m.Inner%8 != 0:
		return fmt.Errorf("%w widths that are not multiples of 8 (%d, %d): use --engine cpu", ErrUnsupported, m.Width,
			m.Inner)
	}
	return nil
}
