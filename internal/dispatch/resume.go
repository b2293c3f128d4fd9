package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/usage"
)

// Resumed is the result of Resume.
type Resumed struct {
	Run       string `json:"run"`
	Out       string `json:"out"`
	WasPaused bool   `json:"unpaused"` // the run was paused, and its queue was intact
	Jobs      int    `json:"jobs"`
	Committed int    `json:"committed"`
	Queued    int    `json:"queued"` // jobs that OUT does not hold, now in the queue
	Dead      int    `json:"dead"`   // dead jobs, which only Retry queues
}

// Resume resumes the run of the output folder out or, where that is empty or holds no
// manifest, the run of that ID, if the queue knows it. Workers take jobs of a paused run again.
// Otherwise the remaining jobs are found from the manifest and the committed files
// alone, and queued, whatever happened to the earlier dispatcher and queue.
func Resume(
	ctx context.Context, client *jobs.Client, out, run string, opt QueueOptions, log zerolog.Logger,
) (*Resumed, error) {
	m, err := find(ctx, client, out, run)
	if err != nil {
		return nil, err
	}
	res := &Resumed{Run: m.Run, Out: m.Out, Jobs: m.JobCount()}
	r, err := client.Run(ctx, m.Run)
	switch {
	case errors.Is(err, jobs.ErrNoRun), errors.Is(err, jobs.ErrNotSetUp):
	case err != nil:
		return nil, err
	case r.State == record.RunPaused:
		if err := resumePaused(ctx, client, m.Run); err == nil {
			res.WasPaused = true
			return res, nil
		} else if !errors.Is(err, jobs.ErrNotSetUp) {
			return nil, err
		}
		// Its consumer is gone: queue the run again.
	}
	if err := client.Setup(ctx, opt.Topology); err != nil {
		return nil, err
	}
	own := func(run string) (func(), error) { return Acquire(ctx, client, run, "resume") }
	s, err := underLock(ctx, m, log, own, func() (*Submitted, error) { return takeStock(ctx, m, StaleAfter, log) })
	if err != nil {
		return nil, err
	}
	defer s.Release()
	opt.KeepDead = true
	if err := s.Queue(ctx, client, opt); err != nil {
		return nil, err
	}
	res.Committed, res.Queued, res.Dead = len(s.Committed.Jobs), s.Queued, s.Dead
	return res, nil
}

// find reads the manifest of the run that is named by OUT or by its ID.
func find(ctx context.Context, client *jobs.Client, out, run string) (*score.Manifest, error) {
	if out != "" {
		m, err := outdir.ReadManifest(ctx, out)
		switch {
		case err == nil:
			return m, sameOut(out, m)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, usage.Errorf("%s: %w", out, err)
		case run == "":
			return nil, usage.Errorf("%s is neither a run ID nor an output folder with a %s", out, score.ManifestName)
		}
	}
	_, m, err := open(ctx, client, run)
	if errors.Is(err, jobs.ErrNoRun) || errors.Is(err, jobs.ErrNotSetUp) {
		return nil, usage.Errorf("the queue does not know run %s; if the queue was wiped or recreated, "+
			"name the run's output folder: dispatcher resume OUT", run)
	}
	return m, err
}

// sameOut rejects an output folder that was moved: workers write to the one in the
// manifest.
func sameOut(out string, m *score.Manifest) error {
	if out == m.Out {
		return nil
	}
	a, aerr := os.Stat(out)
	b, berr := os.Stat(m.Out)
	if aerr == nil && berr == nil && os.SameFile(a, b) {
		return nil
	}
	return usage.Errorf("%s holds run %s, whose workers write to %s: move it back, or make that path lead to it", out,
		m.Run, m.Out)
}

// Pause makes workers finish the run's jobs in hand and take no more of them, until
// Resume, even if servers and workers restart.
func Pause(ctx context.Context, client *jobs.Client, run string) error {
	_, err := client.UpdateRun(ctx, run, func(r *record.Run) error {
		if r.State.Final() {
			return usage.Errorf("run %s is %s: nothing to pause", run, r.State)
		}
		r.State = record.RunPaused
		return nil
	})
	if err != nil {
		return err
	}
	err = client.PauseRun(ctx, run)
	if errors.Is(err, jobs.ErrNotSetUp) {
		return nil // nothing is queued yet; whoever queues it sees that the run is paused
	}
	return err
}

// resumePaused undoes Pause. It fails with jobs.ErrNotSetUp if the run's part of the
// queue is gone.
func resumePaused(ctx context.Context, client *jobs.Client, run string) error {
	if err := client.ResumeRun(ctx, run); err != nil {
		return err
	}
	_, err := client.UpdateRun(ctx, run, func(r *record.Run) error {
		if r.State == record.RunPaused {
			r.State = record.RunRunning
		}
		return nil
	})
	return err
}

// Cancel ends a run and deletes its jobs from the queue. Workers finish and commit the
// jobs in hand; with now they drop them. Committed scores stay, and Submit or Resume
// continues from there.
func Cancel(ctx context.Context, client *jobs.Client, run string, now bool) error {
	if _, err := client.Run(ctx, run); err != nil {
		return err
	}
	release, err := Acquire(ctx, client, run, "cancel") // no other dispatcher may be queuing its jobs
	if err != nil {
		return err
	}
	defer release()
	_, err = client.UpdateRun(ctx, run, func(r *record.Run) error {
		if r.State == record.RunComplete {
			return usage.Errorf("run %s is complete: nothing to cancel", run)
		}
		r.State, r.Drop, r.Error = record.RunCancelled, r.Drop || now, ""
		return nil
	})
	if err != nil {
		return err
	}
	return client.CloseRun(ctx, run)
}

// RetryOptions is what to retry.
type RetryOptions struct {
	Dead        bool // dead jobs
	FailedFiles bool // files that could not be planned
}

// Retried is the result of Retry.
type Retried struct {
	Run         string `json:"run"`
	DeadJobs    int    `json:"dead_jobs"`    // requeued
	MendedFiles int    `json:"mended_files"` // files that could now be planned
	FailedFiles int    `json:"failed_files"` // files that still could not
	NewJobs     int    `json:"new_jobs"`     // jobs of the files that could now be planned
}

// Retry requeues the run's dead jobs, keeping the history in their records, and plans
// its failed files again.
func Retry(
	ctx context.Context, client *jobs.Client, run string, what RetryOptions, opt QueueOptions, log zerolog.Logger,
) (*Retried, error) {
	r, m, err := open(ctx, client, run)
	if err != nil {
		return nil, err
	}
	if r.State == record.RunCancelled {
		return nil, usage.Errorf("run %s was cancelled: resume it with dispatcher resume %s", run, run)
	}
	own := func(run string) (func(), error) { return Acquire(ctx, client, run, "retry") }
	res := &Retried{Run: run}
	s, err := underLock(ctx, m, log, own, func() (*Submitted, error) {
		if m, err = outdir.ReadManifest(ctx, m.Out); err != nil { // under the lock
			return nil, usage.Errorf("%s: %w", r.Out, err)
		}
		if what.FailedFiles {
			if err := res.replan(ctx, m); err != nil {
				return nil, err
			}
		}
		return takeStock(ctx, m, StaleAfter, log)
	})
	if err != nil {
		return nil, err
	}
	defer s.Release()
	opt.KeepDead = !what.Dead
	if what.Dead {
		err := client.JobStates(ctx, run, func(st record.Job) {
			if st.State == record.StateDead && !s.Committed.Jobs[st.Job] {
				res.DeadJobs++
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return res, s.Queue(ctx, client, opt)
}

// replan plans m's failed files again and writes the manifest if that succeeds for any.
func (res *Retried) replan(ctx context.Context, m *score.Manifest) error {
	for i := range m.Files {
		f := &m.Files[i]
		if f.Error == "" {
			continue
		}
		in, err := shard.Look(ctx, f.Input)
		var plan score.FilePlan
		if err == nil {
			plan, err = shard.Plan(ctx, in, shard.PlanOptions{Options: m.Options, JobTokens: m.JobTokens})
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			plan = score.FilePlan{Input: f.Input, Error: err.Error()}
		}
		if *f = plan; f.Error != "" {
			res.FailedFiles++
			continue
		}
		res.MendedFiles++
		res.NewJobs += len(f.Cuts)
	}
	if res.MendedFiles == 0 {
		return nil
	}
	if err := outdir.ReplaceManifest(ctx, m.Out, m); err != nil {
		return fmt.Errorf("retry failed files: %w", err)
	}
	return nil
}
