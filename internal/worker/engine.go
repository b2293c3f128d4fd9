package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"surprisal/internal/gpu"
	"surprisal/internal/model"
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

// ErrEngine: a job or a person asks for an engine that this worker lacks.
var ErrEngine = errors.New("engine is not available")

// gpus lists the GPUs that this program can score on; the error says why there
// are none.
func gpus() ([]gpu.DeviceInfo, error) { return gpu.Devices() }

// engines lists the engines that this program and machine have, best first.
func engines() []score.EngineKind {
	if _, err := gpus(); err == nil {
		return []score.EngineKind{score.EngineCUDA, score.EngineCPU}
	}
	return []score.EngineKind{score.EngineCPU}
}

// resolveEngine says which engine auto is here, and refuses one that is not here.
func resolveEngine(k score.EngineKind, ordinal int) (score.EngineKind, error) {
	switch k {
	case score.EngineAuto:
		if k = engines()[0]; k == score.EngineCPU {
			return k, nil
		}
	case score.EngineCPU:
		return k, nil
	case score.EngineCUDA:
	default:
		return "", fmt.Errorf("%w: %q is not one of auto, cpu, cuda", ErrEngine, k)
	}
	list, err := gpus()
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %w: use --engine cpu", ErrEngine, err)
	case ordinal < 0 || ordinal >= len(list):
		return "", fmt.Errorf("%w: --gpu %d: only %d GPUs are visible", ErrEngine, ordinal, len(list))
	}
	return score.EngineCUDA, nil
}

// newEngine loads a checkpoint into this worker's engine, and tells its phases.
func (m *models) newEngine(ckpt *model.Checkpoint, cfg model.Config, queryScale float64,
	took func(phase string, d time.Duration)) (Engine, error) {
	if m.kind == score.EngineCUDA {
		return gpu.New(ckpt, cfg, gpu.Config{Device: m.cfg.GPU, QueryScale: queryScale, MaxTokens: m.cfg.BatchTokens,
			Took: took})
	}
	return cpu.New(ckpt, cfg, cpu.Config{QueryScale: queryScale, Threads: m.cfg.Threads, MaxTokens: m.cfg.BatchTokens})
}
