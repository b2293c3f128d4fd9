package record

import (
	"fmt"
	"slices"
	"time"
)

// Outcome is how an attempt ended.
type Outcome string

// The outcomes of an attempt. A job that was given back has none.
const (
	OutcomeDone    Outcome = "done"    // output committed
	OutcomeFailed  Outcome = "failed"  // the worker gave a reason, and another attempt may succeed
	OutcomeStalled Outcome = "stalled" // the worker found that there was no progress
	OutcomeLost    Outcome = "lost"    // the worker never settled it
	OutcomeDead    Outcome = "dead"    // the job is dead: no attempt can succeed, or none was left
)

// Attempt is an attempt that ended.
type Attempt struct {
	// Number counts the job's attempts over all submissions, from 1, whereas Job.Attempt
	// starts again with each submission.
	Number  int       `json:"number"`
	Worker  string    `json:"worker"`
	Started time.Time `json:"started,omitzero"`
	// Ended is when it was settled, or found to be lost.
	Ended   time.Time `json:"ended"`
	Outcome Outcome   `json:"outcome"`
	Error   string    `json:"error,omitempty"`
}

const maxHistory = 10 // newest attempts kept

// Ended returns the history with one more attempt. It does not change its argument.
func Ended(history []Attempt, worker string, started time.Time, how Outcome, reason string) []Attempt {
	a := Attempt{
		Number: 1, Worker: worker, Started: started, Ended: time.Now().UTC(), Outcome: how,
		Error: Clean(reason, maxAttemptError),
	}
	if n := len(history); n > 0 {
		a.Number = history[n-1].Number + 1
	}
	return append(slices.Clone(history[max(0, len(history)-maxHistory+1):]), a)
}

// HistoryWithLost is the history with the attempt of the recorded lease, whose worker
// never settled it.
func (s Job) HistoryWithLost() []Attempt {
	if s.Stalled != "" {
		return Ended(s.History, s.Worker, s.Started, OutcomeStalled, s.Stalled)
	}
	return Ended(s.History, s.Worker, s.Started, OutcomeLost, "")
}

// checkHistory checks a history that was read.
func checkHistory(history []Attempt) error {
	if len(history) > maxHistory {
		return fmt.Errorf("%w: %d attempts, at most %d are kept", ErrBad, len(history), maxHistory)
	}
	for i, a := range history {
		if a.Number < 1 || (i > 0 && a.Number <= history[i-1].Number) {
			return fmt.Errorf("%w: attempt number %d", ErrBad, a.Number)
		}
	}
	return nil
}
