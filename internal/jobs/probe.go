package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/score"
)

// Health is the result of Probe.
type Health struct {
	URL       string // without secrets
	Server    string // its name
	Version   string
	Cluster   string // empty for a single server
	RoundTrip time.Duration
	// StoreUsed and StoreLimit are the account's, in bytes; a negative limit means none.
	StoreUsed, StoreLimit int64
	// Publish is the median time to store one message of a job's size in a file.
	Publish time.Duration
	// ClockAhead is how far the server's clock is ahead of this machine's.
	ClockAhead time.Duration
}

// probes is how many messages Probe publishes.
const probes = 5

// Probe measures the server, and stores a few messages in a stream of its own, which it
// deletes again. It does not touch the queue. An error wraps ErrNoJetStream, or says
// what the server refuses.
func (c *Client) Probe(ctx context.Context) (h Health, err error) {
	ctx = perRequest{ctx}
	h = Health{URL: c.URL()}
	if nc, ok := c.nc.NATS.(*nats.Conn); ok {
		h.Server, h.Version, h.Cluster = nc.ConnectedServerName(), nc.ConnectedServerVersion(),
			nc.ConnectedClusterName()
		if h.RoundTrip, err = nc.RTT(); err != nil {
			return h, c.fail("measure the round trip", err)
		}
	}
	a, err := c.js.AccountInfo(ctx)
	if err != nil {
		return h, c.fail("ask for the account", err)
	}
	h.StoreUsed, h.StoreLimit = int64(min(a.Store, 1<<62)), a.Limits.MaxStore
	name := "SURPRISAL_PROBE_" + rand.Text()
	subject := "surprisal.control.probe." + strings.ToLower(rand.Text()) // one that dispatchers may publish to
	asked := time.Now()
	s, err := c.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: name, Subjects: []string{subject}, Storage: jetstream.FileStorage, Replicas: 1, MaxAge: time.Minute,
		MaxBytes: 1 << 20,
	})
	if err != nil {
		return h, c.fail("make a stream in a file", err)
	}
	defer func() {
		if derr := c.js.DeleteStream(ctx, name); derr != nil && err == nil {
			err = c.fail("remove the probe's stream "+name, derr)
		}
	}()
	if at := s.CachedInfo().TimeStamp; !at.IsZero() {
		now := time.Now()
		h.ClockAhead = at.Sub(asked.Add(now.Sub(asked) / 2))
	}
	body := make([]byte, 1<<10)
	var took []time.Duration
	for range probes {
		began := time.Now()
		if _, err := c.js.Publish(ctx, subject, body); err != nil {
			return h, c.fail("publish a message", err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	h.Publish = took[len(took)/2]
	return h, nil
}

// Store is how many bytes JetStream stores for the account, and how many it may store; a
// negative limit means none.
func (c *Client) Store(ctx context.Context) (used, limit int64, err error) {
	var a *jetstream.AccountInfo
	err = read(ctx, func(ctx context.Context) (err error) {
		a, err = c.js.AccountInfo(ctx)
		return err
	})
	if err != nil {
		return 0, 0, c.fail("ask for the account", err)
	}
	return int64(min(a.Store, 1<<62)), a.Limits.MaxStore, nil
}

// DeleteRun deletes all that the server has of a run: its jobs in the queue, their
// records, its dead letters and, last, its own record, so that an interrupted call can
// be repeated. OUT is not touched.
func (c *Client) DeleteRun(ctx context.Context, run string) error {
	if !score.ValidRunID(run) {
		return fmt.Errorf("delete run: %q is not a run ID", run)
	}
	if err := c.CloseRun(ctx, run); err != nil {
		return err
	}
	ctx = perRequest{ctx}
	for _, x := range []struct{ stream, subject string }{
		{"KV_" + JobBucket, "$KV." + JobBucket + "." + run + ".*"},
		{deadStream, deadSubject(run, "*")},
		{"KV_" + runBucket, "$KV." + runBucket + "." + run},
	} {
		s, err := c.js.Stream(ctx, x.stream)
		if err == nil {
			err = s.Purge(ctx, jetstream.WithPurgeSubject(x.subject))
		}
		if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return c.fail("delete run "+run, err)
		}
	}
	return nil
}
