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
	// ErrNotSetUp: the streams or the consumer are missing; a dispatcher creates them.
	ErrNotSetUp = errors.New("queue is not set up")
	// ErrDrift: a stream, bucket or consumer exists with different settings.
	// The error is a *DriftError.
	ErrDrift = errors.New("queue is set up differently")

	// ErrEpochUsed: jobs were recently published under this epoch and have left the
	// queue since, so the server dropped the new ones as duplicates. Submit them under a
	// new epoch (NextEpoch).
	ErrEpochUsed = errors.New("epoch was used before")

	// ErrStalled is the cause of a lease's context if there was no progress.
	ErrStalled = errors.New("job makes no progress")
	// ErrCancelled is the cause of a lease's context if its run was cancelled and jobs
	// in hand are to be dropped.
	ErrCancelled = errors.New("run is cancelled")
	// ErrSettled: the lease has been settled already.
	ErrSettled = errors.New("lease is already settled")
	// ErrSuperseded: the job was delivered again, to this or another worker, so this
	// lease may no longer settle it.
	ErrSuperseded = errors.New("job has been delivered again")
	// ErrNotAcked: the job is recorded as done, but its message could not be acked. This
	// is harmless: the message is delivered again, and the job found done.
	ErrNotAcked = errors.New("done, but the message is not acked")

	// ErrNoRun: there is no record of the run.
	ErrNoRun = errors.New("no such run")
	// ErrNoJob: no worker has taken the job, or there is no job with this ID.
	ErrNoJob = errors.New("no record of the job")
	// ErrHeld: another dispatcher has the run's lease. The error is a *HeldError.
	ErrHeld = errors.New("run is in use by another dispatcher")
	// ErrNoWorker: no worker with this ID answers.
	ErrNoWorker = errors.New("no such worker")
	// ErrRunExists: the run already has a record.
	ErrRunExists = errors.New("run already exists")
)

// DriftError has the differences of an existing stream, bucket or consumer from what
// this program would create. It matches ErrDrift.
type DriftError struct {
	What  string   // "stream SURPRISAL_JOBS"
	Diffs []string // "AckWait is 30s, want 1m0s"
}

// Error has the differences and the remedy, in one line.
func (e *DriftError) Error() string {
	return e.What + " is set up differently: " + strings.Join(e.Diffs, "; ") +
		": omit the option, or delete it while no run is active"
}

// OldConsumerError: a consumer that does not belong to a run takes the jobs of all runs.
// It matches ErrDrift.
type OldConsumerError struct{ Stream, Consumer string }

// Error has the remedy, in one line.
func (e *OldConsumerError) Error() string {
	return fmt.Sprintf("consumer %s of stream %s, made by an earlier version, takes the jobs of all runs: once no "+
		"worker of that version is running, delete it with `nats consumer rm %s %s`, then retry",
		e.Consumer, e.Stream, e.Stream, e.Consumer)
}

// Is makes errors.Is(err, ErrDrift) true.
func (e *OldConsumerError) Is(target error) bool { return target == ErrDrift }

// Is makes errors.Is(err, ErrDrift) true.
func (e *DriftError) Is(target error) bool { return target == ErrDrift }
