package monitor

import (
	"context"
	"errors"
	"time"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
)

// Pace is how far a run is and how fast it advances.
type Pace struct {
	Done    int     `json:"done"`
	Total   int     `json:"total"`
	Percent float64 `json:"percent"` // of the rows, including those scored of jobs in hand
	// TokensPerSec is the sum over the workers that have jobs of the run in hand.
	TokensPerSec float64 `json:"tokens_per_second"`
	// Left in seconds; absent while unknown and when the run has ended.
	Left *float64 `json:"seconds_left,omitempty"`
}

// paceOf works out a run's pace from its record, what its jobs add up to and its
// workers.
func paceOf(r record.Run, t tally, workers []record.Worker) Pace {
	p := Pace{Done: t.count[record.StateDone], Total: r.Jobs}
	documents, tokens := t.documents, t.tokens
	if r.State == record.RunComplete {
		p.Done, p.Percent = p.Total, 100
		return p
	}
	for _, w := range workers {
		ours := 0
		for _, h := range w.Progress {
			if h.Run == r.ID {
				ours++
				documents += h.Documents
				tokens += h.Tokens
			}
		}
		if ours > 0 {
			p.TokensPerSec += w.TokensPerSec * float64(ours) / float64(len(w.Progress))
		}
	}
	if r.Rows > 0 {
		p.Percent = min(100, 100*float64(documents)/float64(r.Rows))
	}
	if p.TokensPerSec > 0 && !r.State.Final() {
		left := float64(r.Tokens) * (1 - p.Percent/100) // estimated ones, until some are counted
		if documents > 0 && tokens > 0 {
			left = float64(tokens) / float64(documents) * float64(max(0, r.Rows-documents))
		}
		s := (time.Duration(left / p.TokensPerSec * float64(time.Second))).Round(time.Second).Seconds()
		p.Left = &s
	}
	return p
}

// RunLine is a run in a list.
type RunLine struct {
	record.Run
	Pace Pace `json:"pace"`
	Dead int  `json:"dead"`
}

// ListRuns lists the runs that a server knows, the oldest first. It counts the jobs of
// runs that are not complete.
func ListRuns(ctx context.Context, client *jobs.Client) ([]RunLine, error) {
	lines := []RunLine{}
	runs, err := client.Runs(ctx)
	if errors.Is(err, jobs.ErrNotSetUp) {
		return lines, nil
	}
	if err != nil {
		return nil, err
	}
	workers, err := client.Workers(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		t := newTally()
		if r.State != record.RunComplete {
			if t, err = tallyOf(ctx, client, r.ID); err != nil {
				return nil, err
			}
		}
		lines = append(lines, RunLine{Run: r, Pace: paceOf(r, t, workers), Dead: t.count[record.StateDead]})
	}
	return lines, nil
}
