package gpu

import (
	"errors"
	"time"
)

var (
	// ErrUnavailable is returned where this program or machine cannot run the engine.
	ErrUnavailable = errors.New("CUDA is not available")
	// ErrUnsupported is returned for a model that needs what the engine lacks.
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
	// Precision is that of the layers' large products: "fp16", which "" means, or "int8".
	Precision string
	// MaxTokens is a batch's token budget, a multiple of score.SplitMultiple; 0 is
	// 32,768, or the half, quarter ... that fits the free memory.
	MaxTokens int
	// Took is called with the duration of each phase of New; nil for no calls.
	Took func(phase string, d time.Duration)
}

// DeviceInfo is a visible GPU.
type DeviceInfo struct {
	Ordinal int
	UUID    string // as in NVML, without GPU- or MIG-; empty where the driver reports none
	Name    string
	Memory  int64 // bytes
	Major   int   // compute capability
	Minor   int
}
