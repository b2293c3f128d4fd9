package gpu

import (
	"errors"
	"fmt"
	"math"

	"surprisal/internal/model"
	"surprisal/internal/score"
)

var (
	// ErrUnavailable: this program or machine can't run the engine.
	ErrUnavailable = errors.New("CUDA is not available")
	// ErrUnsupported: the engine does not have what this model needs.
	ErrUnsupported = errors.New("the CUDA engine does not have")
	// ErrClosed is returned by Forward after Close.
	ErrClosed = errors.New("engine is closed")
)

// Config is what a caller may choose.
type Config struct {
	// Device is the GPU's ordinal among the visible ones.
	Device int
	// QueryScale multiplies q in the recurrence; 0 is 1/sqrt(K), as trained.
	QueryScale float64
	// MaxTokens is a batch's token budget, a multiple of score.SplitMultiple; 0 is
	// 32,768, or the half, quarter ... that fits the free memory.
	MaxTokens int
}

// DeviceInfo is a visible GPU.
type DeviceInfo struct {
	Ordinal int
	Name    string
	Memory  int64 // bytes
	Major   int   // compute capability
	Minor   int
}

const (
	defaultMaxTokens = 32768
	minMaxTokens     = 1024 // least that the default is halved to
	maxMaxTokens     = 1 << 18
	rowTile          = 256  // matrix products take a multiple of so many rows
	headRows         = 4096 // rows of a slice of the head
	taps             = 4    // of the short convolution; shorter ones have zeros in front
	initialStates    = 8    // recurrent states that New takes memory for
)

func (c Config) withDefaults(m model.Config) Config {
	if c.QueryScale == 0 {
		c.QueryScale = 1 / math.Sqrt(float64(m.K))
	}
	return c
}

func (c Config) validate() error {
	switch {
	case math.IsNaN(c.QueryScale) || math.IsInf(c.QueryScale, 0) || c.QueryScale < 0:
		return fmt.Errorf("query scale %v is not a positive number", c.QueryScale)
	case c.MaxTokens != 0 && (c.MaxTokens < score.SplitMultiple || c.MaxTokens > maxMaxTokens || c.MaxTokens%score.SplitMultiple != 0):
		return fmt.Errorf("a batch of %d tokens is not a multiple of %d up to %d", c.MaxTokens, score.SplitMultiple, maxMaxTokens)
	case c.Device < 0:
		return fmt.Errorf("GPU %d is not a device", c.Device)
	}
	return nil
}

// Supported refuses what the kernels were not written for.
func Supported(m model.Config) error {
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
		return fmt.Errorf("%w short convolutions of %d taps, only up to %d: use --engine cpu", ErrUnsupported, m.ConvSize, taps)
	case m.Width%8 != 0 || m.Inner%8 != 0:
		return fmt.Errorf("%w widths that are not multiples of 8 (%d, %d): use --engine cpu", ErrUnsupported, m.Width, m.Inner)
	}
	return nil
}

// columns says where each projection stands in the fused one, and its width,
// padded to whole tiles of 16.
type columns struct{ q, k, v, b, w, f, g, eta, total int }

func columnsOf(c model.Config) columns {
	kd, vd := c.Heads*c.K, c.VHeads*c.V
	o := columns{q: 0, k: kd, v: 2 * kd, b: 2*kd + vd, w: 3*kd + vd, f: 3*kd + 2*vd, g: 3*kd + 2*vd + c.V, eta: 3*kd + 2*vd + 2*c.V}
	o.total = o.eta
	if c.Kaczmarz {
		o.total += c.Heads
	}
	o.total = roundUp(o.total, 16)
	return o
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// check refuses a batch that Forward could not run safely.
func check(b *score.Batch, maxTokens, vocab int) error {
	t, n := len(b.IDs), len(b.States)
	switch {
	case t > maxTokens:
		return fmt.Errorf("batch has %d tokens, more than the budget of %d", t, maxTokens)
	case len(b.Targets) != t:
		return fmt.Errorf("batch has %d ids and %d targets", t, len(b.Targets))
	case len(b.NLL) != t || len(b.Top1) != t:
		return fmt.Errorf("batch has %d ids and room for %d scores: Alloc was not called", t, min(len(b.NLL), len(b.Top1)))
	case t == 0 && n == 0 && len(b.CuSeqlens) <= 1:
		return nil
	case len(b.CuSeqlens) != n+1:
		return fmt.Errorf("batch has %d states and %d sequence bounds", n, len(b.CuSeqlens))
	case b.CuSeqlens[0] != 0 || int(b.CuSeqlens[n]) != t:
		return fmt.Errorf("batch's sequences span %d to %d, its ids are %d", b.CuSeqlens[0], b.CuSeqlens[n], t)
	}
	for i := range n {
		if b.CuSeqlens[i+1] <= b.CuSeqlens[i] {
			return fmt.Errorf("sequence %d spans %d to %d", i, b.CuSeqlens[i], b.CuSeqlens[i+1])
		}
	}
	for i, id := range b.IDs {
		if id < 0 || int(id) >= vocab {
			return fmt.Errorf("id %d at %d is outside the vocabulary of %d", id, i, vocab)
		}
		if g := b.Targets[i]; g != score.NoTarget && (g < 0 || int(g) >= vocab) {
			return fmt.Errorf("target %d at %d is outside the vocabulary of %d", g, i, vocab)
		}
	}
	return nil
}
