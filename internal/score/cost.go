package score

import (
	"fmt"
	"math"
	"slices"
)

// Cost is what committed jobs took on GPUs, as far as one queue's records tell.
type Cost struct {
	// Queue names the queue whose records these sums are of; empty: earlier ones.
	Queue string `json:"queue,omitempty"`
	Jobs  int    `json:"jobs"` // that told of GPU time
	// Tokens of the jobs whose energy is known, and that.
	Tokens int64   `json:"tokens"`
	Joules float64 `json:"joules"`
	// GPUTokens of the jobs whose GPU time is known, and that.
	GPUTokens  int64   `json:"gpu_tokens"`
	GPUSeconds float64 `json:"gpu_seconds"`
}

// maxCosts bounds the queues that a manifest tells of one by one.
const maxCosts = 16

func (c *Cost) add(o Cost) {
	c.Jobs += o.Jobs
	c.Tokens, c.Joules = c.Tokens+o.Tokens, c.Joules+o.Joules
	c.GPUTokens, c.GPUSeconds = c.GPUTokens+o.GPUTokens, c.GPUSeconds+o.GPUSeconds
}

// JoulesPerMillionTokens is the GPUs' energy; ok is false where none is known.
func (c Cost) JoulesPerMillionTokens() (j float64, ok bool) {
	return c.Joules / float64(c.Tokens) * 1e6, c.Tokens > 0
}

// GPUDaysPerBillionTokens is the time of one GPU; ok is false where none is known.
func (c Cost) GPUDaysPerBillionTokens() (d float64, ok bool) {
	return c.GPUSeconds / 86400 / float64(c.GPUTokens) * 1e9, c.GPUTokens > 0
}

// Cost is what the run has taken on GPUs so far, through all its queues.
func (m *Manifest) Cost() (sum Cost) {
	for _, c := range m.Costs {
		sum.add(c)
	}
	return sum
}

// Charge takes what a queue's records tell in place of what they told before. True:
// the manifest has changed.
func (m *Manifest) Charge(c Cost) bool {
	if c.Jobs == 0 {
		return false
	}
	costs := slices.Clone(m.Costs)
	i := slices.IndexFunc(costs, func(o Cost) bool { return o.Queue == c.Queue })
	switch {
	case i < 0:
		costs = append(costs, c)
	case costs[i] == c:
		return false
	case costs[i].Jobs > c.Jobs: // records were removed: those that were there cost what they did
		costs[i].Queue = ""
		costs = append(costs, c)
	default:
		costs[i] = c
	}
	// The earlier queues' sums are one, and so are those of queues long gone.
	var earlier Cost
	for i := 0; i < len(costs); {
		if costs[i].Queue == "" || len(costs) > maxCosts {
			earlier.add(costs[i])
			costs = slices.Delete(costs, i, i+1)
			continue
		}
		i++
	}
	if earlier.Jobs > 0 {
		costs = slices.Insert(costs, 0, earlier)
	}
	m.Costs = costs
	return true
}

func (m *Manifest) checkCosts() error {
	if len(m.Costs) > maxCosts+1 {
		return fmt.Errorf("manifest: costs of %d queues, at most %d are kept", len(m.Costs), maxCosts+1)
	}
	for _, c := range m.Costs {
		if c.Jobs < 0 || c.Tokens < 0 || c.GPUTokens < 0 || !(c.Joules >= 0) || !(c.GPUSeconds >= 0) || math.IsInf(c.Joules+c.GPUSeconds, 0) || len(c.Queue) > 64 {
			return fmt.Errorf("manifest: cost %+v is not one", c)
		}
	}
	return nil
}
