package jobs

import (
	"time"

	"surprisal/internal/score"
)

// State is where a job is.
type State string

// The states of a job. A queued job that no worker has taken yet has no record.
const (
	StateRunning State = "running" // a worker has it
	StateWaiting State = "waiting" // given back uncounted: drained, or declined
	StateFailed  State = "failed"  // an attempt failed; it is tried again later
	StateDone    State = "done"    // output committed
	StateDead    State = "dead"    // in the dead letters
)

// Totals is what a job's output adds up to, for progress shown to people; a
// run's result is added up from the committed outputs instead.
type Totals struct {
	Documents int64   `json:"documents"`
	Failed    int64   `json:"failed"` // rows without a score
	Tokens    int64   `json:"tokens"`
	Bytes     int64   `json:"bytes"`
	SumNLL    float64 `json:"sum_nll"` // nats
	Top1      int64   `json:"top1"`
	Seconds   float64 `json:"seconds"` // wall time in the worker
}

// JobState is the newest record of a job, bucket surprisal_jobs, key <run>.<job>.
type JobState struct {
	Version int    `json:"v"`
	Run     string `json:"run"`
	Job     string `json:"job"`
	State   State  `json:"state"`
	// Seq and Delivery name the delivery that wrote this: the message's stream
	// sequence and how often it had been delivered.
	Seq      uint64 `json:"seq"`
	Delivery uint64 `json:"delivery"`
	// Failed and Lost count the attempts of this message that ended in Retry, and
	// those whose worker never settled them.
	Failed int `json:"failed,omitempty"`
	Lost   int `json:"lost,omitempty"`
	// Attempt is 1 for the first.
	Attempt int       `json:"attempt"`
	Worker  string    `json:"worker"`
	Engine  string    `json:"engine,omitempty"`
	Device  string    `json:"device,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Updated time.Time `json:"updated"`
	// Error of the last failed attempt, or why the job is dead or was declined.
	Error  string  `json:"error,omitempty"`
	Totals *Totals `json:"totals,omitempty"` // with StateDone only
}

// RunState is where a run is.
type RunState string

// The states of a run. Paused and cancelled have their place here; nothing sets
// them yet.
const (
	RunPlanned   RunState = "planned"   // manifest written, jobs not all queued
	RunRunning   RunState = "running"   // jobs queued
	RunPaused    RunState = "paused"    //
	RunComplete  RunState = "complete"  // every output is there and checked
	RunFailed    RunState = "failed"    // jobs are dead, or the check failed
	RunCancelled RunState = "cancelled" //
)

// Final reports whether nothing happens to a run in this state by itself.
func (s RunState) Final() bool {
	return s == RunComplete || s == RunFailed || s == RunCancelled
}

// RunRecord is a manifest's header without its files, and how the run fares:
// bucket surprisal_runs, key <run>. The manifest itself is in OUT.
type RunRecord struct {
	Version int      `json:"v"`
	ID      string   `json:"id"`
	Created string   `json:"created"` // RFC 3339, UTC, as in the manifest
	Program string   `json:"program"`
	Out     string   `json:"out"`
	Inputs  []string `json:"inputs"` // the first MaxRunInputs of them
	// InputCount is how many there were.
	InputCount   int           `json:"input_count"`
	Options      score.Options `json:"options"`
	Model        score.Model   `json:"model"`
	ConfigDigest string        `json:"config_digest"`
	Files        int           `json:"files"`
	Jobs         int           `json:"jobs"`
	Rows         int64         `json:"rows"`
	Tokens       int64         `json:"estimated_tokens"`
	State        RunState      `json:"state"`
	// Epoch is the last that NextEpoch gave.
	Epoch   uint64    `json:"epoch"`
	Updated time.Time `json:"updated"`
	// Error says why a run failed.
	Error string `json:"error,omitempty"`
}

// WorkerRecord is a worker's sign of life: bucket surprisal_workers, key <id>. It
// vanishes WorkerTTL after the last PutWorker.
type WorkerRecord struct {
	ID           string    `json:"id"` // [a-z0-9-], 1 to 63 characters
	Host         string    `json:"host"`
	PID          int       `json:"pid"`
	Engine       string    `json:"engine"`
	Device       string    `json:"device"`
	Version      string    `json:"version"`
	Started      time.Time `json:"started"`
	Updated      time.Time `json:"updated"`
	Jobs         []string  `json:"jobs,omitempty"` // in hand, "<run>.<job>"
	JobsDone     int64     `json:"jobs_done"`
	TokensDone   int64     `json:"tokens_done"`
	TokensPerSec float64   `json:"tokens_per_second"`
	Draining     bool      `json:"draining,omitempty"`
}

// WorkerTTL is how long a worker is listed after its last sign of life; PutWorker
// is due every WorkerTTL/3.
const WorkerTTL = 30 * time.Second

// MaxRunInputs bounds the inputs kept in a run's record.
const MaxRunInputs = 16

// DeadLetter is kept when a job dies: stream SURPRISAL_DEAD, subject
// surprisal.dead.<run>.<job>, the newest of each job.
type DeadLetter struct {
	Version int    `json:"v"`
	Run     string `json:"run"` // as the message's subject has it
	ID      string `json:"job"`
	// Job is nil when the message was not a job; Raw has its first bytes then.
	Job *score.Job `json:"message,omitempty"`
	Raw []byte     `json:"raw,omitempty"`
	// Reason in words for people.
	Reason string `json:"reason"`
	// Attempts that counted, and deliveries altogether.
	Attempts   int       `json:"attempts"`
	Deliveries uint64    `json:"deliveries"`
	Seq        uint64    `json:"seq"`
	Worker     string    `json:"worker,omitempty"` // empty: the dispatcher's finding
	Time       time.Time `json:"time"`
}

// QueueInfo is the work stream and its consumer at one moment.
type QueueInfo struct {
	Messages    uint64    // in the stream: waiting, in workers' hands or delayed
	Bytes       uint64    //
	Pending     uint64    // not delivered yet
	AckPending  int       // in workers' hands, or delayed after a failed attempt
	Redelivered int       // of these, delivered more than once
	Waiting     int       // workers that wait for a job
	Oldest      time.Time // when the oldest message was queued; zero when none is
}
