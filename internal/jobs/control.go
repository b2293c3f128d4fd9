package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"surprisal/internal/jobs/record"
)

// Subjects of messages from dispatchers to workers. They only save time: consumers and
// records have the same information, and a worker reads them every lookEvery.
const (
	noticeSubject = "surprisal.control.run."    // + run
	drainSubject  = "surprisal.control.worker." // + worker
)

// messenger is the part of a *nats.Conn that sends and receives messages outside
// JetStream. Without it, workers notice changes every lookEvery.
type messenger interface {
	Publish(subject string, data []byte) error
	Subscribe(subject string, f nats.MsgHandler) (*nats.Subscription, error)
	RequestWithContext(ctx context.Context, subject string, data []byte) (*nats.Msg, error)
}

// notice is a change of a run.
type notice string

const (
	noticeQueued  notice = "queued"  // jobs were queued
	noticeChanged notice = "changed" // its consumer or its record changed
)

// announce sends a notice to the connected workers. Nothing acknowledges it.
func (c *Client) announce(run string, n notice) error {
	if nc, ok := c.nc.NATS.(messenger); ok {
		return nc.Publish(noticeSubject+run, []byte(n))
	}
	return nil
}

// onNotice calls f for each notice, one after another, until end is called.
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

// ListenDrain calls drain when this worker is asked to drain, until the client is
// closed.
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

// Drain asks a worker to finish its jobs in hand and exit. It returns once the worker
// has confirmed, or ErrNoWorker if no worker with this ID answers.
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
