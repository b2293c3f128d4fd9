package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"surprisal/internal/score"
)

// State is where a job is.
type State string

// The states of a job. A queued job that no worker has taken yet has no record.
const (
	StateRunning State = "running" // a worker has it
	StateWaiting State = "waiting" // given back: drained or declined
	StateFailed  State = "failed"  // an attempt failed; the job will be retried
	StateDone    State = "done"    // output committed
	StateDead    State = "dead"    // in the dead letters
)

// Totals is the sum over a job's output, for progress shown to people; a run's result is
// computed from the committed outputs.
type Totals struct {
	Documents int64   `json:"documents"`
	Failed    int64   `json:"failed"` // rows without a score
	Tokens    int64   `json:"tokens"`
	Bytes     int64   `json:"bytes"`
	SumNLL    float64 `json:"sum_nll"` // nats
	Top1      int64   `json:"top1"`
	Seconds   float64 `json:"seconds"` // wall time in the worker
	// GPU time and energy, if known. The worker charges each job with all that was used
	// since the previous one, so that the sum is right.
	GPUSeconds *float64 `json:"gpu_seconds,omitempty"`
	Joules     *float64 `json:"joules,omitempty"`
}

// Job is the newest record of a job, bucket surprisal_jobs, key <run>.<job>.
type Job struct {
	Version int    `json:"v"`
	Run     string `json:"run"`
	Job     string `json:"job"`
	State   State  `json:"state"`
	// Seq and Delivery identify the delivery that wrote this record: the message's stream
	// sequence, and how often it had been delivered.
	Seq      uint64 `json:"seq"`
	Delivery uint64 `json:"delivery"`
	// Queued is when the message was queued; with Seq it identifies the message even if the
	// stream was recreated.
	Queued time.Time `json:"queued,omitzero"`
	// Lease is the random name of the recorded lease, the one that may settle the job.
	Lease string `json:"lease,omitempty"`
	// Failed and Lost count the attempts at this message that ended in Retry, and those
	// whose worker never settled them.
	Failed int `json:"failed,omitempty"`
	Lost   int `json:"lost,omitempty"`
	// Letter: there is a dead letter of this job or of an earlier message of it.
	Letter bool `json:"letter,omitempty"`
	// Attempt is 1 for the first.
	Attempt int       `json:"attempt"`
	Worker  string    `json:"worker"`
	Engine  string    `json:"engine,omitempty"`
	Device  string    `json:"device,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Updated time.Time `json:"updated"`
	// Stalled: the worker found that there is no progress, and recorded it before it exited.
	Stalled string `json:"stalled,omitempty"`
	// History is how the newest attempts ended, including those of earlier submissions, the
	// oldest first.
	History []Attempt `json:"history,omitempty"`
	// Error of the last failed attempt, or why the job is dead or was declined.
	Error  string  `json:"error,omitempty"`
	Totals *Totals `json:"totals,omitempty"` // with StateDone only
}

// Key is the record's key in its bucket.
func (s Job) Key() string { return s.Run + "." + s.Job }

// SameMessage reports whether s and t were written by deliveries of the same message.
func (s Job) SameMessage(t Job) bool { return s.Seq == t.Seq && s.Queued.Equal(t.Queued) }

// Attempts is how many attempts have counted against the message.
func (s Job) Attempts() int { return s.Failed + s.Lost }

// Encode gives the record's bytes.
func (s Job) Encode() ([]byte, error) {
	s.Version, s.Error, s.Stalled = recordVersion, Clean(s.Error, MaxError), Clean(s.Stalled, maxAttemptError)
	if s.Totals != nil && (math.IsNaN(s.Totals.SumNLL) || math.IsInf(s.Totals.SumNLL, 0)) {
		t := *s.Totals
		s.Error = fmt.Sprintf("sum_nll is %v", t.SumNLL) // JSON has no such number
		t.SumNLL = 0
		s.Totals = &t
	}
	for {
		// Not Marshal: that writes < in an error with six bytes.
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(s); err != nil {
			return nil, fmt.Errorf("encode state of job %s: %w", s.Job, err)
		}
		b := bytes.TrimSpace(buf.Bytes())
		// Quotes and the like still take two bytes each.
		if len(b) <= MaxJobBytes || len(s.History) == 0 {
			return b, nil
		}
		s.History = s.History[1:]
	}
}

// DecodeJob reads a record, which may be anything.
func DecodeJob(b []byte) (Job, error) {
	var s Job
	if err := decodeRecord(b, &s, func() int { return s.Version }); err != nil {
		return Job{}, fmt.Errorf("job state: %w", err)
	}
	bad := func(what string, v any) (Job, error) {
		return Job{}, fmt.Errorf("job state: %w: %s %v", ErrBad, what, v)
	}
	switch {
	case !score.ValidRunID(s.Run):
		return bad("run", s.Run)
	case !ValidToken(s.Job):
		return bad("job", s.Job)
	case !slices.Contains([]State{StateRunning, StateWaiting, StateFailed, StateDone, StateDead}, s.State):
		return bad("state", s.State)
	case s.Failed < 0 || s.Lost < 0 || s.Attempt < 0:
		return bad("attempts", s.Attempt)
	}
	if err := checkHistory(s.History); err != nil {
		return Job{}, fmt.Errorf("job state: %w", err)
	}
	return s, nil
}

// Recordable reports whether the record has a valid key: a message that is not a job may
// have any subject.
func (s Job) Recordable() bool { return score.ValidRunID(s.Run) && ValidToken(s.Job) }
