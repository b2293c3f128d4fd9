package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/score"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/usage"
)

// GarbageRequest is where to look.
type GarbageRequest struct {
	// Out, if set, is searched for temporary files of workers that are gone.
	Out        string
	StaleAfter time.Duration // age of a temporary file; dispatch.StaleAfter
	Quarantine bool          // also search for files that verify quarantined
	// Client, if set, is asked for runs that have ended: only for Run or that of Out, if
	// one is set.
	Client    *jobs.Client
	Run       string
	OlderThan time.Duration // since a run's last change
	DryRun    bool
}

// Garbage is a file or a run that nobody needs.
type Garbage struct {
	Kind    string  `json:"kind"` // temporary, quarantined, run
	Name    string  `json:"name"`
	Why     string  `json:"why"`
	Bytes   int64   `json:"bytes,omitempty"`
	Age     float64 `json:"age_seconds"`
	Removed bool    `json:"removed"`
}

// clockSkew is how much the clocks of file server and queue may differ.
const clockSkew = 5 * time.Minute

// CollectGarbage deletes garbage, or with DryRun lists it. It never deletes a committed
// file, a run that has not ended or a temporary file that a worker may be writing.
func CollectGarbage(ctx context.Context, req GarbageRequest, do func(Garbage) error) error {
	if req.StaleAfter <= 0 {
		req.StaleAfter = dispatch.StaleAfter
	}
	if req.Out != "" {
		run, err := req.files(ctx, do)
		if err != nil {
			return err
		}
		req.Run = run
	}
	if req.Client == nil {
		return nil
	}
	return req.runs(ctx, do)
}

// files searches Out and returns its run.
func (req GarbageRequest) files(ctx context.Context, do func(Garbage) error) (run string, err error) {
	out := req.Out
	m, err := outdir.ReadManifest(ctx, out)
	if err != nil {
		return "", usage.Errorf("%s is not an output folder of a run: %w", out, err)
	}
	if !req.DryRun {
		unlock, err := dispatch.LockOut(ctx, out, zerolog.Nop())
		if err != nil {
			return "", err // its workers are writing
		}
		defer unlock()
	}
	before, err := req.writing(ctx, m.Run)
	if err != nil {
		return "", err
	}
	now := time.Now()
	before = earlier(before, now.Add(-req.StaleAfter))
	return m.Run, outdir.List(ctx, out, func(e outdir.Entry) error {
		g := Garbage{Name: e.Path, Bytes: e.Size, Age: now.Sub(e.Modified).Seconds()}
		switch {
		case e.Kind == outdir.EntryTemporary && e.Modified.Before(before):
			g.Kind, g.Why = "temporary", "no worker is writing it"
			if e.Run != m.Run && score.ValidRunID(e.Run) {
				g.Why = "of run " + e.Run + ", not of this folder's run"
			}
		case e.Kind == outdir.EntryQuarantined && req.Quarantine:
			g.Kind, g.Why = "quarantined", "quarantined by verify"
		default:
			return nil
		}
		if !req.DryRun {
			if err := outdir.Remove(ctx, out, e); err != nil {
				return err
			}
			g.Removed = true
		}
		return do(g)
	})
}

func earlier(a, b time.Time) time.Time {
	if !a.IsZero() && a.Before(b) {
		return a
	}
	return b
}

// writing is when the oldest attempt in hand began; zero if there is none, or no
// client. Older temporary files are stale.
func (req GarbageRequest) writing(ctx context.Context, run string) (time.Time, error) {
	var oldest time.Time
	if req.Client == nil {
		return oldest, nil
	}
	workers, err := req.Client.Workers(ctx)
	if err != nil && !errors.Is(err, jobs.ErrNotSetUp) {
		return oldest, err
	}
	for _, w := range workers {
		for _, p := range w.Progress {
			if p.Run != run {
				continue
			}
			s, err := req.Client.Job(ctx, p.Run, p.Job)
			if errors.Is(err, jobs.ErrNoJob) {
				continue
			}
			if err != nil {
				return oldest, err
			}
			if began := s.Started.Add(-clockSkew); oldest.IsZero() || began.Before(oldest) {
				oldest = began
			}
		}
	}
	return oldest, nil
}

func (req GarbageRequest) runs(ctx context.Context, do func(Garbage) error) error {
	runs, err := req.Client.Runs(ctx)
	if errors.Is(err, jobs.ErrNotSetUp) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, r := range runs {
		age := time.Since(r.Updated)
		if req.Run != "" && r.ID != req.Run || !r.State.Final() || age < req.OlderThan {
			continue
		}
		g := Garbage{
			Kind: "run", Name: r.ID, Age: age.Seconds(),
			Why: fmt.Sprintf("%s; its jobs, records and dead letters are deleted, %s is kept", r.State, r.Out),
		}
		if !req.DryRun {
			switch err := req.forget(ctx, r.ID); {
			case errors.Is(err, jobs.ErrHeld):
				continue // a dispatcher has just continued it
			case err != nil:
				return err
			}
			g.Removed = true
		}
		if err := do(g); err != nil {
			return err
		}
	}
	return nil
}

// forget deletes a run while no other dispatcher has its lease.
func (req GarbageRequest) forget(ctx context.Context, run string) error {
	release, err := dispatch.Acquire(ctx, req.Client, run, "gc")
	if err != nil {
		return err
	}
	defer release()
	return req.Client.DeleteRun(ctx, run)
}
