package monitor

import (
	"context"
	"errors"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
)

// Status is the state of runs, queue and workers in the queue's records.
type Status struct {
	Runs    []RunStatus     `json:"runs"`
	Queue   jobs.QueueInfo  `json:"queue"`
	Workers []record.Worker `json:"workers"`
}

// RunStatus is one run.
type RunStatus struct {
	Run       record.Run           `json:"run"`
	Jobs      map[record.State]int `json:"jobs"` // jobs that have a record, by state
	Documents int64                `json:"documents"`
	Tokens    int64                `json:"tokens"`
	Pace      Pace                 `json:"pace"`
	Dead      []record.DeadLetter  `json:"dead,omitempty"`
	// Dispatcher has the run's lease, if any has.
	Dispatcher *record.Dispatcher `json:"dispatcher,omitempty"`
}

// GetStatus gives the status of one run, or with run "" of all that have not ended.
func GetStatus(ctx context.Context, client *jobs.Client, run string) (*Status, error) {
	st := &Status{Runs: []RunStatus{}, Workers: []record.Worker{}}
	var records []record.Run
	if run != "" {
		r, err := client.Run(ctx, run)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	} else {
		all, err := client.Runs(ctx)
		if errors.Is(err, jobs.ErrNotSetUp) {
			return st, nil // nothing was ever queued there
		}
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
		r.Pace = paceOf(r.Run, tally{count: r.Jobs, documents: r.Documents, tokens: r.Tokens}, workers)
	}
	return st, nil
}

func runStatus(ctx context.Context, client *jobs.Client, r record.Run) (RunStatus, error) {
	t, err := tallyOf(ctx, client, r.ID)
	rs := RunStatus{Run: r, Jobs: t.count, Documents: t.documents, Tokens: t.tokens}
	if err != nil {
		return rs, err
	}
	if r.State == record.RunComplete {
		// All files were checked; the record of the last job may still be on its way.
		rs.Jobs, rs.Documents = map[record.State]int{record.StateDone: r.Jobs}, r.Rows
	}
	if d, ok, err := client.Dispatcher(ctx, r.ID); err != nil {
		return rs, err
	} else if ok {
		rs.Dispatcher = &d
	}
	rs.Dead, err = client.Dead(ctx, r.ID)
	return rs, err
}

// tallyOf counts a run's jobs.
func tallyOf(ctx context.Context, client *jobs.Client, run string) (tally, error) {
	t := newTally()
	err := client.JobStates(ctx, run, func(s record.Job) { t.add(s.State, doneOf(s), 1) })
	return t, err
}
