package worker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/embedded"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

var errBroken = errors.New("broken")

// brokenEngine fails on every batch, after a while.
type brokenEngine struct{ simEngine }

func (*brokenEngine) Forward(context.Context, *score.Batch) error {
	time.Sleep(time.Second) // until the worker asks for the next job
	return errBroken
}

// TestEngineFailureEndsTheWorker: also while it waits for a job that does not
// come, so that its job is tried again at once and not when it counts as stalled.
func TestEngineFailureEndsTheWorker(t *testing.T) {
	in := newSimInput(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	srv, err := embedded.Start(ctx, embedded.Config{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Shutdown()
	client, err := jobs.Connect(ctx, conn.Config{URLs: []string{srv.URL()}, Token: srv.Token(),
		Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	sub, err := dispatch.Begin(ctx, dispatch.Request{
		Inputs: []string{in.dir + "/a.parquet"}, Out: t.TempDir(), ModelDir: in.model,
		Options: score.Options{IDsColumn: simIDs, Long: score.LongCarry, MaxLength: 2048, Special: score.SpecialText,
			Engine: score.EngineCPU},
	}, 0, zerolog.Nop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Release()
	if err := sub.Queue(ctx, client, dispatch.QueueOptions{}); err != nil || sub.Queued != 1 {
		t.Fatal(sub.Queued, err)
	}
	w, err := New(client, Config{Engine: score.EngineCPU})
	if err != nil {
		t.Fatal(err)
	}
	w.models.open = func(context.Context, *score.Job) (Engine, error) { return new(brokenEngine), nil }
	start := time.Now()
	if err := w.Run(ctx, ctx); !errors.Is(err, errBroken) {
		t.Fatalf("the worker ended with %v after %s", err, time.Since(start))
	}
	var state record.Job
	if err := client.JobStates(ctx, sub.Manifest.Run, func(s record.Job) { state = s }); err != nil ||
		state.State != record.StateFailed {
		t.Fatalf("the job's record is %+v (%v), want that the attempt failed", state, err)
	}
}
