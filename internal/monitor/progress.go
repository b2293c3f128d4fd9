package monitor

import "time"

// Progress is how far a run is, for people: results come from committed files.
type Progress struct {
	Jobs, Done, Dead, Running int
	// Rows of all jobs, and documents scored.
	Rows, Documents int64
	// Tokens scored, including those committed before this command began.
	Tokens int64
	// Rate in tokens/s over the last seconds; Left is negative while unknown.
	Rate    float64
	Left    time.Duration
	Elapsed time.Duration
	// Paused: a person paused the run; workers only finish the jobs in hand.
	Paused bool
	// Waiting is why jobs wait, if the record of one says so.
	Waiting string
	Workers int
	// Run and its jobs by state. LastCommit is when the watch last saw a job done, or
	// when it began.
	Run        string
	States     map[string]int
	LastCommit time.Time
}
