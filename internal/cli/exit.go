package cli

import (
	"context"
	"errors"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/usage"
)

// Exit codes of both programs.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitInterrupted = 130
)

// Code is the exit code for err: that of wrong usage also where err is a wrong way
// to reach NATS or is one of wrong.
func Code(err error, wrong ...error) int {
	if err == nil {
		return ExitOK
	}
	if errors.As(err, new(*usage.Error)) {
		return ExitUsage
	}
	for _, w := range append(wrong, conn.ErrAuth, conn.ErrConfig, conn.ErrTLS, conn.ErrDenied) {
		if errors.Is(err, w) {
			return ExitUsage
		}
	}
	if errors.Is(err, context.Canceled) {
		return ExitInterrupted
	}
	return ExitFailed
}
