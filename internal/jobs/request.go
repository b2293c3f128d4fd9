package jobs

import (
	"context"
	"errors"
	"surprisal/internal/jobs/conn"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// requestTimeout bounds one request: one that went into a connection just
	// dying is never answered, whatever time its caller has.
	requestTimeout = 5 * time.Second
	readTries      = 3 // of what only reads
)

// perRequest hides ctx's deadline, not its end, so that the jetstream package
// puts requestTimeout on each request.
type perRequest struct{ context.Context }

// Deadline reports none.
func (perRequest) Deadline() (time.Time, bool) { return time.Time{}, false }

// stopError ends again's tries.
type stopError struct{ error }

func (e stopError) Unwrap() error { return e.error }

func permanent(err error) error { return stopError{err} }

// again does what until it succeeds, fails for good, or ctx ends.
func again(ctx context.Context, what func(context.Context) error) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := what(perRequest{ctx})
		var stop stopError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &stop):
			return stop.error
		case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, jetstream.ErrMsgAlreadyAckd):
			return err
		case ctx.Err() != nil:
			return err
		}
		conn.Sleep(ctx, conn.Jitter(wait))
		if ctx.Err() != nil {
			return err
		}
	}
}

// read does what, which changes nothing when it is done twice, and does it again a
// few times where the connection was the trouble.
func read(ctx context.Context, what func(context.Context) error) error {
	for try := 1; ; try++ {
		err := what(perRequest{ctx})
		if err == nil || try == readTries || ctx.Err() != nil || !isBroken(err) {
			return err
		}
		conn.Sleep(ctx, conn.Jitter(200*time.Millisecond))
	}
}

// codeWrongLastConstant is what a server says of a lost compare and swap, in place
// of JSErrCodeStreamWrongLastSequence, where it can't tell the sequence: of
// replicated streams.
const codeWrongLastConstant jetstream.ErrorCode = 10164

// lostRace reports whether a compare and swap failed because somebody was quicker.
func lostRace(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == codeWrongLastConstant)
}

// codeNoLeader is what the servers of a cluster say while they choose who leads.
const codeNoLeader jetstream.ErrorCode = 10008

// isBroken reports whether a request failed for want of a connection, or of a leader
// among the servers.
func isBroken(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeNoLeader {
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrDisconnected)
}
