package jobs

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that callers decide on. They are wrapped: use errors.Is.
var (
	// ErrNoJetStream: the server or the account has no JetStream.
	ErrNoJetStream = errors.New("NATS server has no JetStream")
	// ErrNotSetUp: the streams or the consumer are missing; a dispatcher makes them.
	ErrNotSetUp = errors.New("queue is not set up")
	// ErrDrift: a stream, bucket or consumer exists and is not as it should be.
	// The error is a *DriftError.
	ErrDrift = errors.New("queue is set up differently")

	// ErrEpochUsed: jobs were published under this epoch a short while ago and
	// are gone from the queue since, so the server dropped them as duplicates.
	// Submit them under a new epoch (NextEpoch).
	ErrEpochUsed = errors.New("epoch was used before")

	// ErrStalled is the cause of a lease's context when its progress stopped.
	ErrStalled = errors.New("job makes no progress")
	// ErrCancelled is the cause of a lease's context when its run was cancelled and
	// what workers hold of it is to be dropped.
	ErrCancelled = errors.New("run is cancelled")
	// ErrSettled: the lease was settled before.
	ErrSettled = errors.New("lease is already settled")
	// ErrSuperseded: the job was delivered again, to this or to another worker,
	// so this lease may no longer decide what becomes of it.
	ErrSuperseded = errors.New("job has been delivered again")
	// ErrNotAcked: the job is recorded as done and its message could not be
	// acked. Harmless: it is delivered again and found done.
	ErrNotAcked = errors.New("done, but the message is not acked")

	// ErrNoRun: there is no record of the run.
	ErrNoRun = errors.New("no such run")
	// ErrNoJob: nobody has had the job, or there is none of that id.
	ErrNoJob = errors.New("no record of the job")
	// ErrHeld: another dispatcher works on the run. The error is a *HeldError.
	ErrHeld = errors.New("run is in use by another dispatcher")
	// ErrNoWorker: no worker of that id answers.
	ErrNoWorker = errors.New("no such worker")
	// ErrRunExists: there is a record of the run already.
	ErrRunExists = errors.New("run already exists")
)

// DriftError says in what an existing stream, bucket or consumer differs from
// what this program would have made. It matches ErrDrift.
type DriftError struct {
	What  string   // "stream SURPRISAL_JOBS"
	Diffs []string // "AckWait is 30s, want 1m0s"
}

// Error gives the differences and the remedy in one line.
func (e *DriftError) Error() string {
	return e.What + " is set up differently: " + strings.Join(e.Diffs, "; ") +
		": omit the option, or delete it while no run is active"
}

// OldConsumerError: a consumer that is no run's takes the jobs of all runs. It
// matches ErrDrift.
type OldConsumerError struct{ Stream, Consumer string }

// Error says in one line what to do.
func (e *OldConsumerError) Error() string {
	return fmt.Sprintf("consumer %s of stream %s, made by an earlier version, takes the jobs of all runs: once no worker of that version is running, delete it with `nats consumer rm %s %s`, then retry",
		e.Consumer, e.Stream, e.Stream, e.Consumer)
}

// Is makes errors.Is(err, ErrDrift) true.
func (e *OldConsumerError) Is(target error) bool { return target == ErrDrift }

// Is makes errors.Is(err, ErrDrift) true.
func (e *DriftError) Is(target error) bool { return target == ErrDrift }
