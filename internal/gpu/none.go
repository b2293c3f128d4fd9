//go:build !cuda

package gpu

import (
	"context"
	"fmt"

	"surprisal/internal/model"
	"surprisal/internal/score"
)

// Built reports whether this program contains the CUDA engine.
const Built = false

// Engine is never created by a program without CUDA.
type Engine struct{}

func absent() error {
	return fmt.Errorf("%w: this program was built without it (build with `make gpu`)", ErrUnavailable)
}

// New always fails: this program has no CUDA engine.
func New(*model.Checkpoint, model.Config, Config) (*Engine, error) { return nil, absent() }

// Devices always fails: this program has no CUDA engine.
func Devices() ([]DeviceInfo, error) { return nil, absent() }

func (*Engine) Forward(context.Context, *score.Batch) error { return absent() }
func (*Engine) NewState() (score.State, error)              { return nil, absent() }
func (*Engine) CopyState(_, _ score.State) error            { return absent() }
func (*Engine) Info() score.EngineInfo                      { return score.EngineInfo{} }
func (*Engine) Close() error                                { return nil }
