package score

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"
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
	// When that energy was spent, by the times of the jobs' commits: steps of so many
	// seconds (a power of two), at most maxSteps of them, those without any left out.
	StepSeconds int64      `json:"step_seconds,omitempty"`
	Steps       []CostStep `json:"steps,omitempty"`
}

// CostStep is the energy of the jobs committed in one step of time.
type CostStep struct {
	At     int64   `json:"at"` // its begin, Unix seconds, a multiple of the step
	Tokens int64   `json:"tokens"`
	Joules float64 `json:"joules"`
}

const (
	maxCosts = 16      // queues that a manifest tells of one by one
	maxSteps = 120     // of one Cost
	maxStep  = 1 << 32 // seconds
)

// Spend adds a job's energy, committed then.
func (c *Cost) Spend(at time.Time, tokens int64, joules float64) {
	c.Tokens, c.Joules = c.Tokens+tokens, c.Joules+joules
	c.step(CostStep{at.Unix(), tokens, joules})
}

// step adds to the step that s lies in. Steps double where they are too many: what
// they are in the end does not depend on the order.
func (c *Cost) step(s CostStep) {
	c.StepSeconds = max(c.StepSeconds, 1)
	s.At -= (s.At%c.StepSeconds + c.StepSeconds) % c.StepSeconds
	i, there := slices.BinarySearchFunc(c.Steps, s.At, func(o CostStep, at int64) int { return cmp.Compare(o.At, at) })
	if there {
		c.Steps[i].Tokens, c.Steps[i].Joules = c.Steps[i].Tokens+s.Tokens, c.Steps[i].Joules+s.Joules
		return
	}
	c.Steps = slices.Insert(c.Steps, i, s)
	for len(c.Steps) > maxSteps {
		c.widen(2 * c.StepSeconds)
	}
}

func (c *Cost) widen(seconds int64) {
	steps := c.Steps
	c.StepSeconds, c.Steps = seconds, nil
	for _, s := range steps {
		c.step(s)
	}
}

func (c *Cost) add(o Cost) {
	c.Jobs += o.Jobs
	c.Tokens, c.Joules = c.Tokens+o.Tokens, c.Joules+o.Joules
	c.GPUTokens, c.GPUSeconds = c.GPUTokens+o.GPUTokens, c.GPUSeconds+o.GPUSeconds
	if o.StepSeconds > c.StepSeconds {
		c.widen(o.StepSeconds)
	}
	for _, s := range o.Steps {
		c.step(s)
	}
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
	case reflect.DeepEqual(costs[i], c):
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
		return fmt.Errorf("manifest: costs of %d queues, at most %d are allowed", len(m.Costs), maxCosts+1)
	}
	for _, c := range m.Costs {
		if c.Jobs < 0 || c.Tokens < 0 || c.GPUTokens < 0 || !(c.Joules >= 0) || !(c.GPUSeconds >= 0) ||
			math.IsInf(c.Joules+c.GPUSeconds, 0) || len(c.Queue) > 64 {
			return fmt.Errorf("manifest: invalid cost %+v", c)
		}
		if err := c.checkSteps(); err != nil {
			return err
		}
	}
	return nil
}

func (c Cost) checkSteps() error {
	w := c.StepSeconds
	if len(c.Steps) > maxSteps || w < 0 || w > maxStep || w&(w-1) != 0 || w == 0 && len(c.Steps) > 0 {
		return fmt.Errorf("manifest: cost of %d steps of %d s", len(c.Steps), w)
	}
	for i, s := range c.Steps {
		if s.At%w != 0 || i > 0 && s.At <= c.Steps[i-1].At || s.Tokens < 0 || !(s.Joules >= 0) ||
			math.IsInf(s.Joules, 0) {
			return fmt.Errorf("manifest: invalid cost of step %+v of %d s", s, w)
		}
	}
	return nil
}
