package record

import (
	"fmt"
	"slices"
	"time"
)

// Outcome is how an attempt ended.
type Outcome string

// The outcomes of an attempt. One that was given back uncounted has none.
const (
	OutcomeDone    Outcome = "done"    // output committed
	OutcomeFailed  Outcome = "failed"  // its worker said why, and another may try
	OutcomeStalled Outcome = "stalled" // it made no progress, as its worker found
	OutcomeLost    Outcome = "lost"    // its worker never settled it
	OutcomeDead    Outcome = "dead"    // it ended the job: no other could do better, or none was left
)

// Attempt is one that ended.
type Attempt struct {
	// Number counts the job's attempts over all submissions, from 1; the job's
	// own Attempt begins anew with each.
	Number  int       `json:"number"`
	Worker  string    `json:"worker"`
	Started time.Time `json:"started,omitzero"`
	// Ended is when it was settled; of a lost one, when that was found.
	Ended   time.Time `json:"ended"`
	Outcome Outcome   `json:"outcome"`
	Error   string    `json:"error,omitempty"`
}

const maxHistory = 10 // attempts kept, the newest

// ended adds an attempt to a history, which is not changed.
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

// lost adds the attempt of the lease on record, whose worker never settled it.
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
