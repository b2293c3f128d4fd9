package main

import (
	"context"
	"os"
	"slices"

	"github.com/rs/zerolog"

	"surprisal/internal/traces"
)

// trace begins the span of a command that may queue jobs, where the OTEL_* variables
// name a collector; end sends it.
func trace(args []string) (_ context.Context, end func(error), _ error) {
	ctx := context.Background()
	cmd, _, err := newRoot(life{ctx, ctx}).Find(args)
	if err != nil || !slices.Contains([]string{"run", "submit", "resume", "retry", "verify"}, cmd.Name()) {
		return ctx, func(error) {}, nil // a wrong command is complained of later
	}
	t, err := traces.New(ctx, "surprisal-dispatcher", version, zerolog.New(os.Stderr).With().Timestamp().Logger())
	if err != nil {
		return nil, nil, err
	}
	ctx, over := t.Run(ctx, cmd.Name())
	return ctx, func(err error) { over(err); t.Close() }, nil
}
