package worker

import (
	"fmt"

	"surprisal/internal/model/cpu"
	"surprisal/internal/score"
)

// Inventory is what this program and this machine can score on: a dispatcher asks
// for it before it starts workers here.
type Inventory struct {
	Engines []score.EngineKind `json:"engines"` // best first
	GPUs    []inventoryGPU     `json:"gpus"`
	NoGPU   string             `json:"no_gpu,omitempty"`   // why there are none
	CPUSet  string             `json:"cpu_set,omitempty"`  // the instruction set that the CPU engine uses
	CPUSets []string           `json:"cpu_sets,omitempty"` // those that it can use here, fastest first
	Version string             `json:"version"`
}

type inventoryGPU struct {
	Ordinal int    `json:"gpu"`
	Name    string `json:"name"`
	Memory  int64  `json:"memory_bytes"`
	Compute string `json:"compute_capability"`
}

// TakeInventory looks at the machine; program is this program's version.
func TakeInventory(program string) (Inventory, error) {
	out := Inventory{Engines: engines(), GPUs: []inventoryGPU{}, CPUSets: cpu.Sets(), Version: program}
	var err error
	if out.CPUSet, err = cpu.Set(); err != nil {
		return Inventory{}, fmt.Errorf("%w: %w", ErrEngine, err)
	}
	list, err := gpus()
	if err != nil {
		out.NoGPU = err.Error()
	}
	for _, g := range list {
		out.GPUs = append(out.GPUs, inventoryGPU{g.Ordinal, g.Name, g.Memory, fmt.Sprintf("%d.%d", g.Major, g.Minor)})
	}
	return out, nil
}
