package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/shard"
)

// Status is how runs, queue and workers stand, as the queue's records have it.
type Status struct {
	Runs    []RunStatus         `json:"runs"`
	Queue   jobs.QueueInfo      `json:"queue"`
	Workers []jobs.WorkerRecord `json:"workers"`
}

// RunStatus is one run.
type RunStatus struct {
	Run       jobs.RunRecord     `json:"run"`
	Jobs      map[jobs.State]int `json:"jobs"` // that a worker has had, by state
	Documents int64              `json:"documents"`
	Tokens    int64              `json:"tokens"`
	Pace      Pace               `json:"pace"`
	Dead      []jobs.DeadLetter  `json:"dead,omitempty"`
}

// GetStatus asks for one run, or for all that are not over with run "".
func GetStatus(ctx context.Context, client *jobs.Client, run string) (*Status, error) {
	st := &Status{Runs: []RunStatus{}, Workers: []jobs.WorkerRecord{}}
	var records []jobs.RunRecord
	if run != "" {
		r, err := client.Run(ctx, run)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	} else {
		all, err := client.Runs(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			if !r.State.Final() {
				records = append(records, r)
			}
		}
	}
	for _, r := range records {
		rs, err := runStatus(ctx, client, r)
		if err != nil {
			return nil, err
		}
		st.Runs = append(st.Runs, rs)
	}
	var err error
	if st.Queue, err = client.Queue(ctx); err != nil {
		return nil, err
	}
	workers, err := client.Workers(ctx)
	if err != nil {
		return nil, err
	}
	st.Workers = append(st.Workers, workers...)
	for i := range st.Runs {
		r := &st.Runs[i]
		r.Pace = paceOf(r.Run, r.Jobs, r.Documents, r.Tokens, workers)
	}
	return st, nil
}

func runStatus(ctx context.Context, client *jobs.Client, r jobs.RunRecord) (RunStatus, error) {
	rs := RunStatus{Run: r, Jobs: map[jobs.State]int{}}
	err := client.JobStates(ctx, r.ID, func(s jobs.JobState) {
		rs.Jobs[s.State]++
		if s.Totals != nil && s.State == jobs.StateDone {
			rs.Documents += s.Totals.Documents
			rs.Tokens += s.Totals.Tokens
		}
	})
	if err != nil {
		return rs, err
	}
	rs.Dead, err = client.Dead(ctx, r.ID)
	return rs, err
}

// Wait follows a submitted run to its end, checks OUT and sums up.
func Wait(ctx context.Context, client *jobs.Client, run string, report func(Progress), log zerolog.Logger) (*Summary, error) {
	started := time.Now()
	r, err := client.Run(ctx, run)
	if err != nil {
		return nil, err
	}
	m, err := shard.ReadManifest(ctx, r.Out)
	if err != nil {
		return nil, usage("run %s: its output folder %s is not to be read here: %w", run, r.Out, err)
	}
	if m.Run != run {
		return nil, usage("%s belongs to run %s now, not to %s", r.Out, m.Run, run)
	}
	c, err := Reconcile(ctx, m)
	if err != nil {
		return nil, err
	}
	before, dead := c.Totals, []DeadJob(nil)
	if len(pending(m, c)) > 0 {
		if c, dead, err = newWatch(client, m, c, report, log).run(ctx); err != nil {
			return nil, err
		}
	}
	sum, err := Summarize(ctx, m, c, dead, before, time.Since(started))
	if err != nil {
		return nil, err
	}
	if err := Finish(ctx, m, sum); err != nil {
		return nil, err
	}
	_, err = client.UpdateRun(ctx, run, func(r *jobs.RunRecord) error {
		r.State, r.Error = jobs.RunComplete, ""
		if !sum.Complete {
			r.State = jobs.RunFailed
			r.Error = fmt.Sprintf("%d dead jobs, %d failed files", len(sum.DeadJobs), len(sum.FailedFiles))
		}
		return nil
	})
	return sum, err
}
