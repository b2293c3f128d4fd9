package serve

import "surprisal/internal/jobs/record"

// gpu is the state of a worker's GPU; nil where the board does not report a value.
type gpu struct {
	Name   string   `json:"name"`
	Index  int      `json:"index"`
	Use    *float64 `json:"use,omitempty"`    // 0 to 1: share of the time in which a kernel ran
	Power  *float64 `json:"power,omitempty"`  // watts
	Limit  *float64 `json:"limit,omitempty"`  // watts
	Memory *uint64  `json:"memory,omitempty"` // bytes used
	Total  *uint64  `json:"total,omitempty"`  // bytes there are
	Heat   *float64 `json:"heat,omitempty"`   // °C
}

// gpuOf is nil for a worker without a GPU, and where NVML reports nothing.
func gpuOf(w record.Worker) *gpu {
	s := w.GPU
	if s == nil {
		return nil
	}
	return &gpu{
		Name: s.Name, Index: s.Index, Use: s.Utilization, Power: s.Power, Limit: s.PowerLimit, Memory: s.MemoryUsed,
		Total: s.MemoryTotal,
		Heat:  s.Temperature,
	}
}
