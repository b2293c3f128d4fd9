package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/conn"
)

const (
	// requestTimeout bounds one request: a request sent into a dying connection is never
	// answered, however long its caller waits.
	requestTimeout = 5 * time.Second
	readTries      = 3 // for requests that can be repeated
)

// perRequest is a context without the deadline of the one it wraps, which it ends with,
// so that the jetstream package applies requestTimeout to each request.
type perRequest struct {
	context.Context // embedded: the type is a context itself
}

// Deadline reports that there is none.
func (perRequest) Deadline() (time.Time, bool) { return time.Time{}, false }

// stopError makes again give up.
type stopError struct{ error }

func (e stopError) Unwrap() error { return e.error }

func permanent(err error) error { return stopError{err} }

// again calls what until it succeeds, fails permanently, or ctx ends.
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

// read calls what, which can be repeated safely, and repeats it a few times if the
// connection fails.
func read(ctx context.Context, what func(context.Context) error) error {
	for try := 1; ; try++ {
		err := what(perRequest{ctx})
		if err == nil || try == readTries || ctx.Err() != nil || !isBroken(err) {
			return err
		}
		conn.Sleep(ctx, conn.Jitter(200*time.Millisecond))
	}
}

// codeWrongLastConstant is the error of a lost compare and swap in a replicated stream,
// where the server cannot give the sequence, instead of
// JSErrCodeStreamWrongLastSequence.
const codeWrongLastConstant jetstream.ErrorCode = 10164

// lostRace reports whether a compare and swap failed because another one was faster.
func lostRace(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == codeWrongLastConstant)
}

// codeNoLeader is the error of a cluster while it elects a leader.
const codeNoLeader jetstream.ErrorCode = 10008

// isBroken reports whether a request failed because there was no connection, or no
// leader in the cluster.
func isBroken(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeNoLeader {
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrDisconnected)
}
