package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/failpoint"
	"surprisal/internal/jobs"
	"surprisal/internal/score"
	"surprisal/internal/shard"
)

// Submitted is a run that is in the queue.
type Submitted struct {
	Manifest  *score.Manifest
	Committed *Committed
	Queued    int // jobs that OUT did not hold
	unlock    func()
}

// Release lets another dispatcher work on OUT.
func (s *Submitted) Release() { s.unlock() }

// StaleAfter is when a temporary in OUT can only be a killed worker's, where
// workers of other machines may be writing.
const StaleAfter = time.Hour

// Begin plans req, writes the manifest, removes temporaries older than stale and
// tells what OUT holds already. It takes OUT's lock; Release it.
func Begin(ctx context.Context, req Request, stale time.Duration, log zerolog.Logger) (*Submitted, error) {
	if req.Out == "" {
		return nil, usage("no output folder is named: give --out DIR")
	}
	m, known, err := Plan(ctx, req)
	if err != nil {
		return nil, err
	}
	unlock, err := lockOut(ctx, m.Out, log)
	if err != nil {
		return nil, err
	}
	s, err := begin(ctx, m, known, stale, log)
	if err != nil {
		unlock()
		return nil, err
	}
	s.unlock = unlock
	return s, nil
}

func begin(ctx context.Context, m, known *score.Manifest, stale time.Duration, log zerolog.Logger) (*Submitted, error) {
	switch {
	case known == nil:
		if err := shard.WriteManifest(ctx, m.Out, m); err != nil {
			return nil, usage("--out: %w", err)
		}
		if err := failpoint.Hit(failpoint.AfterManifest); err != nil {
			return nil, err
		}
	case !sameFiles(known.Files, m.Files):
		if err := shard.ReplaceManifest(ctx, m.Out, m); err != nil {
			return nil, usage("--out: %w", err)
		}
		log.Info().Msg("input files were added or mended since the run began: the manifest has them now")
	}
	if n, err := shard.RemoveTemporaries(ctx, m.Out, m.Run, stale); err != nil {
		log.Warn().Err(err).Msg("old temporary files were not all removed")
	} else if n > 0 {
		log.Info().Int("files", n).Msg("temporary files of killed workers removed")
	}
	c, err := Reconcile(ctx, m)
	if err != nil {
		return nil, err
	}
	for _, f := range c.Foreign {
		log.Warn().Str("file", f).Msg("a score file that is not of this run is in the output folder")
	}
	return &Submitted{Manifest: m, Committed: c}, nil
}

func sameFiles(a, b []score.FilePlan) bool {
	return slices.EqualFunc(a, b, func(x, y score.FilePlan) bool {
		return x.Input == y.Input && x.Error == y.Error && slices.Equal(x.Cuts, y.Cuts)
	})
}

// Queue puts the jobs that OUT does not hold into the queue.
func (s *Submitted) Queue(ctx context.Context, client *jobs.Client, topology jobs.Topology) error {
	m := s.Manifest
	if err := client.Setup(ctx, topology); err != nil {
		return err
	}
	if err := client.PutRun(ctx, jobs.NewRunRecord(m)); err != nil && !errors.Is(err, jobs.ErrRunExists) {
		return err
	}
	left := pending(m, s.Committed)
	s.Queued = len(left)
	if len(left) == 0 {
		return nil
	}
	if err := shard.RemoveSuccess(ctx, m.Out); err != nil {
		return fmt.Errorf("begin run %s: %w", m.Run, err)
	}
	if _, err := client.Revive(ctx, m.Run); err != nil {
		return err
	}
	if err := submit(ctx, client, m.Run, left); err != nil {
		return err
	}
	_, err := client.UpdateRun(ctx, m.Run, func(r *jobs.RunRecord) error {
		r.State, r.Error = jobs.RunRunning, ""
		return nil
	})
	return err
}

// submit queues jobs under a new epoch.
func submit(ctx context.Context, client *jobs.Client, run string, left []score.Job) error {
	epoch, err := client.NextEpoch(ctx, run)
	if err != nil {
		return fmt.Errorf("queue run %s: %w", run, err)
	}
	if _, _, err := client.Submit(ctx, slices.Values(left), epoch); err != nil {
		return fmt.Errorf("queue run %s: %w", run, err)
	}
	return nil
}
