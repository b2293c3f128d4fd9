package worker

import (
	"context"

	"surprisal/internal/model/cpu"
	"surprisal/internal/score"
)

// Engine runs forward passes of one loaded model. There are two: the CPU's and
// CUDA's.
type Engine interface {
	// Forward scores one batch: it fills NLL and Top1, and replaces the states.
	// An error means that the engine can't go on; the worker ends without acking
	// what it had in hand. One call at a time.
	Forward(ctx context.Context, b *score.Batch) error
	// NewState is the state at a document's start. It may be called while Forward
	// runs.
	NewState() (score.State, error)
	// CopyState makes to what from is. It is called between Forwards.
	CopyState(to, from score.State) error
	// Info tells what scored, and the token budget of a batch.
	Info() score.EngineInfo
	// Close frees the model. No Forward may be running.
	Close() error
}

// cpuEngine makes the CPU's engine an Engine: its states can't fail.
type cpuEngine struct{ *cpu.Engine }

func (e cpuEngine) NewState() (score.State, error) { return e.Engine.NewState(), nil }
