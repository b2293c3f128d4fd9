package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/monitor"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/usage"
)

// Wait watches a submitted run until its end, checks OUT and summarizes. Any number of
// dispatchers may wait for a run; the one that has the run's lease requeues lost jobs
// and finishes the run. If it dies, another one takes over.
func Wait(
	ctx context.Context, client *jobs.Client, run string, report func(monitor.Progress), log zerolog.Logger,
) (*Summary, error) {
	started := time.Now()
	keep := keeper{client: client, run: run}
	keep.try(ctx)
	keepCtx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		keep.keep(keepCtx)
	}()
	defer func() {
		stop()
		<-done
	}()
	var before *shard.Totals
	for {
		r, m, err := open(ctx, client, run)
		if err != nil {
			return nil, err
		}
		if r.State == record.RunCancelled {
			return nil, ErrCancelled
		}
		c, err := Reconcile(ctx, m)
		if err != nil {
			return nil, err
		}
		if before == nil {
			t := c.Totals
			before = &t
		}
		var dead []DeadJob
		epoch := r.Epoch
		if countPending(m, c) > 0 {
			w := newWatch(client, m, c, report, log, &keep)
			w.epoch = r.Epoch
			if c, dead, err = w.run(ctx); errors.Is(err, errAnew) {
				log.Info().Str("run", run).Msg("more jobs were submitted; watching them too")
				continue
			} else if err != nil {
				return nil, err
			}
			epoch = w.epoch
		}
		if err := markDone(ctx, client, run, c); err != nil {
			log.Warn().Err(err).Msg("committed jobs may still be recorded as dead")
		}
		sum, err := Summarize(ctx, m, c, dead, *before, time.Since(started))
		if err != nil {
			return nil, err
		}
		bill(ctx, &keep, m, sum, costOf(ctx, client, run, log), log)
		if err := conclude(ctx, client, &keep, m, c, epoch, sum); !errors.Is(err, errAnew) {
			return sum, err
		}
	}
}

// open reads a run's record and its manifest.
func open(ctx context.Context, client *jobs.Client, run string) (record.Run, *score.Manifest, error) {
	r, err := client.Run(ctx, run)
	if err != nil {
		return r, nil, err
	}
	m, err := outdir.ReadManifest(ctx, r.Out)
	if err != nil {
		return r, nil, usage.Errorf("run %s: cannot read its output folder %s on this machine: %w", run, r.Out, err)
	}
	if m.Run != run {
		return r, nil, usage.Errorf("%s now belongs to run %s, not to %s", r.Out, m.Run, run)
	}
	return r, m, nil
}

// conclude finishes the run and records how it ended, or waits until the dispatcher
// that has the run's lease has done so.
func conclude(
	ctx context.Context, client *jobs.Client, t tenure, m *score.Manifest, c *Committed, epoch uint64, sum *Summary,
) error {
	for !t.Held() {
		r, err := client.Run(ctx, m.Run)
		switch {
		case errors.Is(err, jobs.ErrNoRun), errors.Is(err, jobs.ErrNotSetUp):
			return wiped(m)
		case err == nil && r.State == record.RunCancelled:
			return ErrCancelled
		case err == nil && r.State.Final():
			return nil
		}
		select {
		case <-time.After(tick / 2):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := correctDead(ctx, client, m, c); err != nil {
		return err
	}
	if err := Finish(ctx, m, sum); err != nil {
		return err
	}
	_, err := client.UpdateRun(ctx, m.Run, func(r *record.Run) error {
		if r.State == record.RunCancelled {
			return ErrCancelled
		}
		if r.Epoch != epoch || r.Jobs != sum.Jobs {
			return errAnew // jobs were queued since OUT was read
		}
		r.State, r.Error = record.RunComplete, ""
		if !sum.Complete {
			r.State = record.RunFailed
			r.Error = fmt.Sprintf("%d dead jobs, %d failed files", len(sum.DeadJobs), len(sum.FailedFiles))
		}
		return nil
	})
	if err == nil && sum.Complete {
		err = client.CloseRun(ctx, m.Run)
	}
	return err
}

// correctDead marks dead jobs done that have their score file.
func correctDead(ctx context.Context, client *jobs.Client, m *score.Manifest, c *Committed) error {
	var there []string
	err := client.JobStates(ctx, m.Run, func(s record.Job) {
		if s.State == record.StateDead && c.Jobs[s.Job] {
			there = append(there, s.Job)
		}
	})
	for _, id := range there {
		if err == nil {
			err = client.MarkDone(ctx, m.Run, id)
		}
	}
	return err
}

// keeper holds the run's lease whenever no other dispatcher does.
type keeper struct {
	client *jobs.Client
	run    string

	mu    sync.Mutex
	lease *jobs.DispatcherLease
}

// Held reports whether this dispatcher has the lease now.
func (k *keeper) Held() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lease != nil && k.lease.Held()
}

// try takes the lease if it is free.
func (k *keeper) try(ctx context.Context) {
	lease, err := k.client.AcquireRun(ctx, k.run, jobs.AcquireOptions{Command: "wait", Yields: true})
	if err != nil {
		return // another dispatcher has it, or the server does not answer
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lease = lease
}

// keep takes the lease whenever it is free, until ctx ends, and then releases it.
func (k *keeper) keep(ctx context.Context) {
	const every = 2 * time.Second
	for {
		k.mu.Lock()
		lease := k.lease
		k.mu.Unlock()
		if lease != nil {
			select {
			case <-lease.Lost():
			case <-ctx.Done():
			}
			lease.Release()
			k.mu.Lock()
			k.lease = nil
			k.mu.Unlock()
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return
		}
		k.try(ctx)
	}
}
