package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"surprisal/internal/score"
	"surprisal/internal/usage"
)

// FindWorker finds the worker program: bin, or the one beside this program, or
// surprisal-worker on PATH.
func FindWorker(bin string) (string, error) {
	if bin != "" {
		if _, err := exec.LookPath(bin); err != nil {
			return "", usage.Errorf("--worker-bin: %w", err)
		}
		return bin, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "worker")
		if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() {
			return beside, nil
		}
	}
	if p, err := exec.LookPath("surprisal-worker"); err == nil {
		return p, nil
	}
	return "", usage.Errorf("there is no worker program beside this one and no surprisal-worker on PATH: run make " +
		"build, or give --worker-bin")
}

// Engines is the output of `worker engines`.
type Engines struct {
	Engines []score.EngineKind `json:"engines"` // best first
	GPUs    []struct {
		Name string `json:"name"`
	} `json:"gpus"`
}

// Has reports whether the engine is among them.
func (e Engines) Has(k score.EngineKind) bool {
	return slices.Contains(e.Engines, k)
}

func (e Engines) best() score.EngineKind {
	if len(e.Engines) == 0 {
		return score.EngineCPU
	}
	return e.Engines[0]
}

// AskEngines runs `worker engines`: what the program supports on this machine.
func AskEngines(ctx context.Context, bin string) (Engines, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, bin, "engines").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return Engines{}, usage.Errorf("cannot run %s: %w", bin, err)
	}
	var e Engines
	if err := json.Unmarshal(out, &e); err != nil || len(e.Engines) == 0 {
		return e, usage.Errorf("%s is not a worker program of this version: it printed %.80q", bin, out)
	}
	return e, nil
}
