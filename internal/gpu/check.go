//go:build cuda

package gpu

import (
	"fmt"
	"math"

	"surprisal/internal/model"
	"surprisal/internal/score"
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
