package monitor

import "time"

// Progress is how far a run has come. It is for people: results come from
// committed files.
type Progress struct {
	Jobs, Done, Dead, Running int
	// Rows of all jobs, and documents scored so far.
	Rows, Documents int64
	// Tokens scored so far, those committed before this command began among them.
	Tokens int64
	// Rate in tokens/s over the last seconds; Left is negative while unknown.
	Rate    float64
	Left    time.Duration
	Elapsed time.Duration
	// Paused: a person paused the run; only what workers have in hand goes on.
	Paused bool
	// Waiting is what nobody works on and why, if a job says so.
	Waiting string
	Workers int
	// Run and States, of jobs that nobody has had: queued; LastCommit is when the
	// watch last heard of a job done, or since when it watches.
	Run        string
	States     map[string]int
	LastCommit time.Time
}
