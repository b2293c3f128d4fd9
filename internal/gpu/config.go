package gpu

import (
	"errors"
	"fmt"
	"time"

	"surprisal/internal/model"
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

const (
	defaultMaxTokens = 32768
	minMaxTokens     = 1024 // the default is halved to this at least
	maxMaxTokens     = 1 << 18
	maxHeadsWidth    = 1 << 14 // so that 32 bits index an element of a batch
	rowTile          = 256     // rows of a matrix product are a multiple of this
	headRows         = 4096    // rows of a slice of the head
	taps             = 4       // of the short convolution; shorter ones have zeros in front
	initialStates    = 16      // recurrent states that New allocates: long documents side by side, of two batches
)

// Supported returns an error for a model shape that the kernels do not support.
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
