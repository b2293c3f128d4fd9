package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/conn"
)

// errGone: the run has no consumer: the run has ended, or the server has just started.
var errGone = errors.New("the run's consumer is gone")

// pull asks the run's consumer for one job and waits for it that long, with 0 not at
// all. Consume and Messages would prefetch up to 500 jobs, and a worker would hold jobs
// that others could do. A job sent just as ctx ends is lost: it is redelivered after
// AckWait, and no record counts it as an attempt.
func (k *Consumer) pull(ctx context.Context, run string, wait time.Duration) (jetstream.Msg, error) {
	if !k.c.Connected() {
		return nil, conn.ErrUnreachable // a request would leave a subscription in nats.go
	}
	h, err := k.roster.handle(ctx, run)
	if err == nil && wait == 0 {
		var msg jetstream.Msg
		if msg, err = pullNow(h); err == nil {
			return msg, nil
		}
	} else if err == nil {
		// nats.go derives the request's expiry from the deadline, which must therefore be
		// ours: the caller's may be too near.
		ctx, cancel := context.WithTimeout(perRequest{ctx}, wait)
		defer cancel()
		var msg jetstream.Msg
		if msg, err = h.Next(jetstream.FetchContext(ctx)); err == nil {
			return msg, nil
		}
	}
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrConsumerDeleted) ||
		errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, errGone
	}
	return nil, err
}

func pullNow(h jetstream.Consumer) (jetstream.Msg, error) {
	batch, err := h.FetchNoWait(1)
	if err != nil {
		return nil, err
	}
	if msg := <-batch.Messages(); msg != nil {
		return msg, nil
	}
	if err := batch.Error(); err != nil {
		return nil, err
	}
	return nil, jetstream.ErrNoMessages
}
