package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"surprisal/internal/jobs/record"
	"time"

	"github.com/nats-io/nats.go"
)

// Subjects of plain messages from dispatchers to workers. They are hints that
// save time: what they say is in the consumers and the records too, and a worker
// looks there every lookEvery.
const (
	noticeSubject = "surprisal.control.run."    // and the run
	drainSubject  = "surprisal.control.worker." // and the worker
)

// messenger is what plain messages take of a *nats.Conn. Where the connection has
// none of it, workers look every lookEvery.
type messenger interface {
	Publish(subject string, data []byte) error
	Subscribe(subject string, f nats.MsgHandler) (*nats.Subscription, error)
	RequestWithContext(ctx context.Context, subject string, data []byte) (*nats.Msg, error)
}

// notice is what happened to a run.
type notice string

const (
	noticeQueued  notice = "queued"  // jobs were put into its queue
	noticeChanged notice = "changed" // look at its consumer and its record
)

// announce tells the workers at hand. Its error is of the connection: that a
// worker hears it is not sure.
func (c *Client) announce(run string, n notice) error {
	if nc, ok := c.nc.NATS.(messenger); ok {
		return nc.Publish(noticeSubject+run, []byte(n))
	}
	return nil
}

// onNotice calls f for each notice from now on, one after another, until end is
// called.
func (c *Client) onNotice(f func(run string, n notice)) (end func(), err error) {
	nc, ok := c.nc.NATS.(messenger)
	if !ok {
		return func() {}, nil
	}
	sub, err := nc.Subscribe(noticeSubject+"*", func(m *nats.Msg) {
		f(strings.TrimPrefix(m.Subject, noticeSubject), notice(m.Data))
	})
	return func() { _ = sub.Unsubscribe() }, err
}

// ListenDrain calls drain when a person asks this worker to drain, until the
// client is closed.
func (c *Client) ListenDrain(worker string, drain func()) error {
	if !record.ValidToken(worker) {
		return fmt.Errorf("listen for drain: %q is not a worker ID", record.Clean(worker, 80))
	}
	nc, ok := c.nc.NATS.(messenger)
	if !ok {
		return nil
	}
	_, err := nc.Subscribe(drainSubject+worker, func(m *nats.Msg) {
		drain()
		if err := m.Respond([]byte("draining")); err != nil {
			c.log.Warn().Err(err).Msg("drain requested; reply not sent")
		}
	})
	return c.fail("listen for drain", err)
}

// Drain asks a worker to finish what it has in hand and end. It returns once the
// worker has said that it will; ErrNoWorker where none of that id answers.
func (c *Client) Drain(ctx context.Context, worker string) error {
	if !record.ValidToken(worker) {
		return fmt.Errorf("drain: %w: %q is not a worker ID", ErrNoWorker, record.Clean(worker, 80))
	}
	nc, ok := c.nc.NATS.(messenger)
	if !ok {
		return fmt.Errorf("drain: %w: this connection cannot send requests", ErrNoWorker)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	start := time.Now()
	_, err := nc.RequestWithContext(ctx, drainSubject+worker, nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("drain: %w: %s is not connected", ErrNoWorker, worker)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("drain: %w: %s is connected but did not answer within %s: is it frozen?", ErrNoWorker, worker,
			time.Since(start).Round(time.Second))
	}
	return c.fail("drain worker "+worker, err)
}
