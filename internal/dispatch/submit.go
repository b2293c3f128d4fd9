package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/failpoint"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/traces"
	"surprisal/internal/usage"
)

// Submitted is a run that is in the queue.
type Submitted struct {
	Manifest  *score.Manifest
	Committed *Committed
	Queued    int // jobs that OUT did not hold
	Dead      int // dead jobs that were not retried
	release   []func()
}

// Release lets another dispatcher work on the run.
func (s *Submitted) Release() {
	for _, f := range slices.Backward(s.release) {
		f()
	}
	s.release = nil
}

// QueueOptions are settings of a run's queue.
type QueueOptions struct {
	Topology jobs.Topology
	Run      record.RunConfig
	Priority *int // nil: unchanged, or 0 for a new run
	// KeepDead does not retry dead jobs.
	KeepDead bool
}

// Submit plans req and queues the jobs that OUT does not hold, as the run's only
// dispatcher until Release.
func Submit(
	ctx context.Context, client *jobs.Client, req Request, opt QueueOptions, log zerolog.Logger,
) (*Submitted, error) {
	if err := client.Setup(ctx, opt.Topology); err != nil {
		return nil, err
	}
	s, err := Begin(ctx, req, StaleAfter, log, func(run string) (func(), error) {
		return Acquire(ctx, client, run, "submit")
	})
	if err != nil {
		return nil, err
	}
	if err := s.Queue(ctx, client, opt); err != nil {
		s.Release()
		return nil, err
	}
	return s, nil
}

// Acquire takes the run's lease, also from a dispatcher that only watches it.
func Acquire(ctx context.Context, client *jobs.Client, run, command string) (func(), error) {
	l, err := client.AcquireRun(ctx, run, jobs.AcquireOptions{Command: command, Patient: true})
	if err != nil {
		return nil, held(err)
	}
	return l.Release, nil
}

// held makes a usage error of one that names the dispatcher that has the run.
func held(err error) error {
	if errors.Is(err, jobs.ErrHeld) {
		return &usage.Error{Err: err}
	}
	return err
}

// StaleAfter is the age at which a temporary file in OUT must be a killed worker's,
// even if workers on other machines may be writing.
const StaleAfter = time.Hour

// Begin plans req, writes the manifest, deletes temporary files older than stale and
// finds what OUT already holds. It takes OUT's lock and what own takes, until Release.
func Begin(
	ctx context.Context, req Request, stale time.Duration, log zerolog.Logger, own func(run string) (func(), error),
) (*Submitted, error) {
	if req.Out == "" {
		return nil, usage.Errorf("no output folder: give --out DIR")
	}
	m, known, err := Plan(ctx, req)
	if err != nil {
		return nil, err
	}
	return underLock(ctx, m, log, own, func() (*Submitted, error) { return begin(ctx, m, known, stale, log) })
}

// underLock calls what while it holds OUT's lock and what own takes, which the result
// keeps.
func underLock(
	ctx context.Context, m *score.Manifest, log zerolog.Logger, own func(run string) (func(), error),
	what func() (*Submitted, error),
) (*Submitted, error) {
	hold := &Submitted{}
	unlock, err := LockOut(ctx, m.Out, log)
	if err != nil {
		return nil, err
	}
	hold.release = append(hold.release, unlock)
	if own != nil {
		release, err := own(m.Run)
		if err != nil {
			hold.Release()
			return nil, err
		}
		hold.release = append(hold.release, release)
	}
	s, err := what()
	if err != nil {
		hold.Release()
		return nil, err
	}
	s.release = hold.release
	return s, nil
}

func begin(ctx context.Context, m, known *score.Manifest, stale time.Duration, log zerolog.Logger) (*Submitted, error) {
	switch {
	case known == nil:
		if err := outdir.WriteManifest(ctx, m.Out, m); errors.Is(err, fs.ErrExist) {
			return nil, usage.Errorf("--out %s: another dispatcher has just started a run there: repeat the command "+
				"to continue it", m.Out)
		} else if err != nil {
			return nil, usage.Errorf("--out: %w", err)
		}
		if err := failpoint.Hit(failpoint.AfterManifest); err != nil {
			return nil, err
		}
	case !sameFiles(known.Files, m.Files):
		if err := outdir.ReplaceManifest(ctx, m.Out, m); err != nil {
			return nil, usage.Errorf("--out: %w", err)
		}
		log.Info().Msg("input files were added or repaired since the run began; manifest updated")
	}
	return takeStock(ctx, m, stale, log)
}

// takeStock deletes old temporary files and finds what OUT holds.
func takeStock(ctx context.Context, m *score.Manifest, stale time.Duration, log zerolog.Logger) (*Submitted, error) {
	if n, err := outdir.RemoveTemporaries(ctx, m.Out, m.Run, stale); err != nil {
		log.Warn().Err(err).Msg("not all old temporary files were deleted")
	} else if n > 0 {
		log.Info().Int("files", n).Msg("deleted temporary files of killed workers")
	}
	c, err := Reconcile(ctx, m)
	if err != nil {
		return nil, err
	}
	for _, f := range c.Foreign {
		log.Warn().Str("file", f).Msg("the output folder has a score file of another run")
	}
	return &Submitted{Manifest: m, Committed: c}, nil
}

func sameFiles(a, b []score.FilePlan) bool {
	return slices.EqualFunc(a, b, func(x, y score.FilePlan) bool {
		return x.Input == y.Input && x.Error == y.Error && slices.Equal(x.Cuts, y.Cuts)
	})
}

// Queue queues the jobs that OUT does not hold.
func (s *Submitted) Queue(ctx context.Context, client *jobs.Client, opt QueueOptions) error {
	m := s.Manifest
	if err := client.Setup(ctx, opt.Topology); err != nil {
		return err
	}
	fresh := record.NewRun(m)
	fresh.Config = opt.Run
	if opt.Priority != nil {
		fresh.Priority = *opt.Priority
	}
	if err := client.PutRun(ctx, fresh); err != nil && !errors.Is(err, jobs.ErrRunExists) {
		return err
	}
	record, err := client.UpdateRun(ctx, m.Run, func(r *record.Run) error {
		r.Files, r.Jobs, r.Rows, r.Tokens = fresh.Files, fresh.Jobs, fresh.Rows, fresh.Tokens // a manifest may grow
		if opt.Priority != nil {
			r.Priority = *opt.Priority
		}
		return nil
	})
	if err != nil {
		return err
	}
	left := pending(m, s.Committed)
	if s.Queued = countPending(m, s.Committed); opt.KeepDead && s.Queued > 0 {
		if left, err = s.living(ctx, client); err != nil {
			return err
		}
	}
	if s.Queued+s.Dead == 0 {
		return nil
	}
	if err := outdir.RemoveSuccess(ctx, m.Out); err != nil {
		return fmt.Errorf("begin run %s: %w", m.Run, err)
	}
	if !opt.KeepDead {
		if _, err := client.RetryDead(ctx, m.Run); err != nil {
			return err
		}
	}
	return Enqueue(ctx, client, record, opt.Run, left)
}

// alive lists the pending jobs that are not dead, and counts the dead ones.
func (s *Submitted) living(ctx context.Context, client *jobs.Client) (iter.Seq[score.Job], error) {
	dead := map[string]bool{}
	err := client.JobStates(ctx, s.Manifest.Run, func(st record.Job) {
		if st.State == record.StateDead && !s.Committed.Jobs[st.Job] {
			dead[st.Job] = true
		}
	})
	s.Queued, s.Dead = s.Queued-len(dead), len(dead)
	return func(yield func(score.Job) bool) {
		for j := range pending(s.Manifest, s.Committed) {
			if !dead[j.ID] && !yield(j) {
				return
			}
		}
	}, err
}

// Enqueue creates the run's consumer if there is none, as asked for or else as the
// run's record has it, queues jobs and records the run as running. A paused run
// stays paused.
func Enqueue(
	ctx context.Context, client *jobs.Client, r record.Run, asked record.RunConfig, left iter.Seq[score.Job],
) error {
	if err := client.OpenRun(ctx, r.ID, r.Priority, asked, r.Config); err != nil {
		return err
	}
	if r.State == record.RunPaused {
		if err := client.PauseRun(ctx, r.ID); err != nil {
			return err
		}
	}
	if _, err := queueJobs(ctx, client, r.ID, left); err != nil {
		return err
	}
	_, err := client.UpdateRun(ctx, r.ID, func(r *record.Run) error {
		if r.State != record.RunPaused {
			r.State = record.RunRunning
		}
		r.Error, r.Drop, r.Config = "", false, asked.Or(r.Config)
		return nil
	})
	return err
}

// queueJobs queues jobs under a new epoch.
func queueJobs(
	ctx context.Context, client *jobs.Client, run string, left iter.Seq[score.Job],
) (epoch uint64, err error) {
	traces.NameRun(ctx, run)
	if epoch, err = client.NextEpoch(ctx, run); err != nil {
		return 0, fmt.Errorf("queue run %s: %w", run, err)
	}
	if _, _, err := client.Submit(ctx, left, epoch); err != nil {
		return 0, fmt.Errorf("queue run %s: %w", run, err)
	}
	return epoch, nil
}
