package jobs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// Names on the server.
const (
	jobStream    = "SURPRISAL_JOBS"   // the queue
	deadStream   = "SURPRISAL_DEAD"   // dead letters
	eventStream  = "SURPRISAL_EVENTS" // MaxDeliver advisories of the queue
	reapDurable  = "reaper"           // the dispatchers' consumer of the events
	runBucket    = "surprisal_runs"
	JobBucket    = "surprisal_jobs"
	workerBucket = "surprisal_workers"
	leaseBucket  = "surprisal_leases" // dispatchers' leases of runs

	jobSubjects   = "surprisal.job.*.*"
	allJobs       = "surprisal.job.>"
	deadSubjects  = "surprisal.dead.*.*"
	eventSubjects = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES." + jobStream + ".>"
)

const (
	metaFormat      = "surprisal.format"
	metaMonitor     = "io.nats.monitor.enabled" // `nats server check` reads these by itself
	metaMonitorAcks = "io.nats.monitor.outstanding-ack-critical"
	metaMonitorPeer = "io.nats.monitor.peer-expect"
)

// headerRoom is the size allowed for a job message's headers.
const headerRoom = 1 << 10

func jobSubject(run, job string) string  { return "surprisal.job." + run + "." + job }
func deadSubject(run, job string) string { return "surprisal.dead." + run + "." + job }

// Topology is how the queue is set up. In Setup a zero field means unchanged, or the
// default if the queue does not exist yet.
type Topology struct {
	Replicas   int           // 1; 3 or 5 on a cluster
	Duplicates time.Duration // 2 min; how long message ids are remembered
}

func (t Topology) or(d Topology) Topology {
	if t.Replicas == 0 {
		t.Replicas = d.Replicas
	}
	if t.Duplicates == 0 {
		t.Duplicates = d.Duplicates
	}
	return t
}

func (t Topology) withDefaults() Topology {
	return t.or(Topology{Replicas: 1, Duplicates: 2 * time.Minute})
}

func (t Topology) validate() error {
	switch {
	case t.Replicas < 1 || t.Replicas > 5 || t.Replicas%2 == 0:
		return fmt.Errorf("%d replicas: must be 1, 3 or 5", t.Replicas)
	case t.Duplicates < 100*time.Millisecond:
		return fmt.Errorf("duplicate window %s is less than 100ms", t.Duplicates)
	}
	return nil
}

// Setup creates the missing streams, buckets and consumers and checks the others. It
// never changes existing ones, because workers depend on them. Only dispatchers call
// it; two may do so at the same time.
func (c *Client) Setup(ctx context.Context, t Topology) error {
	var found Topology
	err := read(ctx, func(ctx context.Context) (err error) {
		found, err = c.found(ctx)
		return err
	})
	if err != nil {
		return c.fail("set up the queue", err)
	}
	t = t.or(found).withDefaults()
	if err := t.validate(); err != nil {
		return fmt.Errorf("set up the queue: %w", err)
	}
	for _, s := range t.streams() {
		if err := read(ctx, func(ctx context.Context) error { return c.ensureStream(ctx, s, true) }); err != nil {
			return c.fail("set up the queue", err)
		}
	}
	for _, b := range t.buckets() {
		if err := read(ctx, func(ctx context.Context) error { return c.ensureBucket(ctx, b, true) }); err != nil {
			return c.fail("set up the queue", err)
		}
	}
	err = read(ctx, func(ctx context.Context) error { return c.ensureConsumer(ctx, eventStream, reaper(), true) })
	return c.fail("set up the queue", err)
}

// Check returns how the queue is set up, or ErrNotSetUp or ErrDrift. It changes nothing.
func (c *Client) Check(ctx context.Context) (Topology, error) {
	ctx = perRequest{ctx}
	t, err := c.found(ctx)
	if err != nil {
		return t, c.fail("check the queue", err)
	}
	if t.Replicas == 0 {
		return t, fmt.Errorf("check the queue: %w: start a dispatcher first", ErrNotSetUp)
	}
	for _, s := range t.streams() {
		err = errors.Join(err, c.ensureStream(ctx, s, false))
	}
	for _, b := range t.buckets() {
		err = errors.Join(err, c.ensureBucket(ctx, b, false))
	}
	err = errors.Join(err, c.ensureConsumer(ctx, eventStream, reaper(), false))
	return t, c.fail("check the queue", err)
}

// found is the existing topology, with zeros for what is missing.
func (c *Client) found(ctx context.Context) (Topology, error) {
	var t Topology
	s, err := c.js.Stream(ctx, jobStream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return t, nil
	case err != nil:
		return t, err
	}
	cfg := s.CachedInfo().Config
	t.Replicas, t.Duplicates = cfg.Replicas, cfg.Duplicates
	return t, nil
}

func (t Topology) streams() []jetstream.StreamConfig {
	meta := map[string]string{metaFormat: strconv.Itoa(score.FormatVersion), metaMonitor: "true"}
	if t.Replicas > 1 {
		meta[metaMonitorPeer] = strconv.Itoa(t.Replicas)
	}
	return []jetstream.StreamConfig{{
		Name: jobStream, Description: "jobs not done yet", Subjects: []string{jobSubjects},
		Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Replicas: t.Replicas,
		// A second copy of a queued job is rejected, but accepted once the first is acked.
		Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1,
		MaxMsgSize: score.MaxJobBytes + headerRoom, Duplicates: t.Duplicates, Metadata: meta,
	}, {
		Name: deadStream, Description: "jobs given up, the newest letter of each", Subjects: []string{deadSubjects},
		Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Replicas: t.Replicas,
		Discard: jetstream.DiscardOld, MaxMsgsPerSubject: 1, Duplicates: t.Duplicates, Metadata: meta,
	}, {
		Name: eventStream, Description: "jobs that hit MaxDeliver", Subjects: []string{eventSubjects},
		Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Replicas: t.Replicas,
		Discard: jetstream.DiscardOld, MaxAge: 7 * 24 * time.Hour, MaxBytes: 256 << 20, MaxMsgsPerSubject: -1,
		Duplicates: t.Duplicates, Metadata: meta,
	}}
}

func (t Topology) buckets() []jetstream.KeyValueConfig {
	return []jetstream.KeyValueConfig{
		{Bucket: runBucket, Description: "runs", History: 1, MaxValueSize: 64 << 10, Replicas: t.Replicas},
		{Bucket: JobBucket, Description: "newest state of each job", History: 1, MaxValueSize: record.MaxJobBytes,
			Replicas: t.Replicas},
		{Bucket: workerBucket, Description: "workers alive", History: 1, MaxValueSize: 64 << 10, TTL: WorkerTTL,
			Replicas: t.Replicas},
		{Bucket: leaseBucket, Description: "dispatchers at work", History: 1, MaxValueSize: 4 << 10, TTL: LeaseTTL,
			Replicas: t.Replicas},
	}
}

func reaper() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: reapDurable, Description: "turns jobs that hit MaxDeliver into dead letters",
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: 30 * time.Second, MaxDeliver: -1, MaxAckPending: 1000,
		Metadata: map[string]string{metaFormat: strconv.Itoa(score.FormatVersion), metaMonitor: "true"},
	}
}

// fail wraps an error of the server with the operation and the sentinel that callers
// test for.
func (c *Client) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	var known error
	switch {
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, jetstream.ErrConnectionClosed):
		if known = c.Err(); known == nil {
			known = conn.ErrClosed
		}
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerNotFound),
		errors.Is(err, jetstream.ErrBucketNotFound), errors.Is(err, jetstream.ErrNoStreamResponse):
		known = ErrNotSetUp
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		known = ErrNoJetStream
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrDisconnected),
		errors.Is(err, nats.ErrNoResponders):
		known = conn.ErrUnreachable
	}
	if errors.Is(known, conn.ErrDenied) {
		return fmt.Errorf("%s: %w", op, known) // err is only that the connection is closed
	}
	if known != nil && !errors.Is(err, known) {
		return fmt.Errorf("%s: %w: %w", op, known, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}
