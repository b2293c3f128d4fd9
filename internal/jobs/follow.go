package jobs

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/conn"
)

const (
	followBatch = 256              // messages held in memory
	followWait  = 10 * time.Second // for one request
	scanIdle    = 250 * time.Millisecond
	scanLonger  = 5 * time.Second // the longest that a scan waits for messages that seem to be missing
)

// errEnough stops follow without an error.
var errEnough = errors.New("enough")

// follower reads the newest message of each subject of a stream and then all later
// messages, in order and without gaps, even if the connection breaks. Unlike
// KeyValue.Watch it pulls: a slow reader costs the server nothing, and at most
// followBatch messages are held in memory.
type follower struct {
	c       *Client
	stream  string
	filter  string
	each    func(jetstream.Msg) error
	current func() error // called once all existing messages have been read

	scanned *scanned // of a scan; nil: follow until ctx ends

	created time.Time // of the stream; if it is recreated, its sequence starts again
	next    uint64    // stream sequence to continue from; 0: from the newest of each subject
	told    bool      // current was called
}

// scanned is the progress of a scan. A scan does not end just because no message is
// pending: the server takes a record that changes off the pending ones before it counts
// the new one.
type scanned struct {
	seed     maphash.Seed
	subjects map[uint64]struct{} // hashes of the subjects read: a million subjects are 100 MB
	there    int                 // subjects when the scan began
	since    time.Time           // when first no message was pending, or that many subjects were read
}

// again adds a subject, and reports whether it had been read before.
func (s *scanned) again(subject string) bool {
	h := maphash.String(s.seed, subject)
	_, was := s.subjects[h]
	s.subjects[h] = struct{}{}
	return was
}

// whole reports whether all existing records have been read. A deleted record never
// arrives, and records that change faster than they are read stay pending: therefore a
// scan ends after scanLonger in any case.
func (s *scanned) whole(pending uint64) bool {
	if s.since.IsZero() && (pending == 0 || len(s.subjects) >= s.there) {
		s.since = time.Now()
	}
	return len(s.subjects) >= s.there && pending == 0 || !s.since.IsZero() && time.Since(s.since) > scanLonger
}

func (f *follower) run(ctx context.Context) error {
	wait := 100 * time.Millisecond
	for {
		err := f.read(ctx)
		switch {
		case errors.Is(err, errEnough):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case f.c.Err() != nil:
			return f.c.Err()
		case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, jetstream.ErrStreamNotFound), isStop(err):
			return err
		case err == nil:
			wait = 100 * time.Millisecond
			continue
		}
		f.c.log.Debug().Err(err).Str("stream", f.stream).Msg("reading interrupted; resuming")
		conn.Sleep(ctx, conn.Jitter(wait))
		wait = min(2*wait, 5*time.Second)
	}
}

func isStop(err error) bool {
	var stop stopError
	return errors.As(err, &stop)
}

// read creates a consumer that starts where the last one ended, and reads until it fails.
func (f *follower) read(ctx context.Context) error {
	ctx = perRequest{ctx}
	s, err := f.c.js.Stream(ctx, f.stream)
	if err != nil {
		return err
	}
	if created := s.CachedInfo().Created; !created.Equal(f.created) {
		f.created, f.next = created, 0
	}
	cfg := jetstream.ConsumerConfig{
		FilterSubject: f.filter, AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1,
		InactiveThreshold: time.Minute, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
	}
	if f.next > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, f.next
	}
	k, err := s.CreateConsumer(ctx, cfg)
	if err != nil {
		return err
	}
	defer f.forget(ctx, s, k.CachedInfo().Name)
	there := k.CachedInfo().NumPending
	if f.scanned != nil && f.next == 0 {
		f.scanned.there, f.scanned.since = int(there), time.Time{}
		clear(f.scanned.subjects)
	}
	if there == 0 && (f.scanned == nil || f.next == 0) {
		if err := f.tell(); err != nil {
			return err
		}
	}
	seen := uint64(0) // consumer sequence
	for {
		start := time.Now()
		batch, err := k.Fetch(followBatch, jetstream.FetchMaxWait(followWait), jetstream.FetchHeartbeat(2*time.Second))
		if err != nil {
			return err
		}
		got, err := f.drain(ctx, k, batch, &seen)
		if err != nil {
			return err
		}
		// nats.go's timer ended the request, not the server: messages may be lost.
		if got < followBatch && time.Since(start) > followWait+900*time.Millisecond {
			return errors.New("no answer from the server")
		}
		if got < followBatch {
			if err := f.missed(ctx, k, seen); err != nil {
				return err
			}
		}
	}
}

// missed asks the server whether the newest message was lost on its way, after a request
// that ended early: if the connection broke and reconnected before the server noticed,
// no gap would show until the next message.
func (f *follower) missed(ctx context.Context, k jetstream.Consumer, seen uint64) error {
	info, err := k.Info(ctx)
	if err != nil {
		return err
	}
	if info.Delivered.Consumer > seen {
		return fmt.Errorf("messages after the %dth of the consumer are missing", seen)
	}
	if info.NumPending == 0 {
		return f.tell() // the last of the existing messages has left the stream
	}
	return nil
}

func (f *follower) drain(
	ctx context.Context, k jetstream.Consumer, batch jetstream.MessageBatch, seen *uint64,
) (got int, err error) {
	for {
		var msg jetstream.Msg
		var idle <-chan time.Time
		if f.scanned != nil && !f.scanned.since.IsZero() {
			idle = time.After(scanIdle)
		}
		select {
		case <-ctx.Done():
			return got, ctx.Err()
		case <-idle:
			if err := f.missed(ctx, k, *seen); err != nil {
				return got, err
			}
			continue
		case msg = <-batch.Messages():
		}
		if msg == nil {
			return got, batch.Error()
		}
		meta, err := msg.Metadata()
		if err != nil {
			return got, err
		}
		got++
		*seen++
		if meta.Sequence.Consumer != *seen {
			return got, fmt.Errorf("message %d of the consumer is missing", *seen)
		}
		if err := f.each(msg); err != nil {
			return got, permanent(err)
		}
		f.next = meta.Sequence.Stream + 1
		if f.scanned == nil && meta.NumPending == 0 || f.scanned != nil && f.scanned.whole(meta.NumPending) {
			if err := f.tell(); err != nil {
				return got, err
			}
		}
	}
}

func (f *follower) tell() error {
	if f.told {
		return nil
	}
	f.told = true
	if err := f.current(); err != nil {
		return permanent(err)
	}
	return nil
}

// forget deletes the consumer at once rather than after InactiveThreshold.
func (f *follower) forget(ctx context.Context, s jetstream.Stream, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if f.c.Connected() {
		_ = s.DeleteConsumer(ctx, name)
	}
}

// scan reads the newest message of each subject in a stream once. A message that changes
// meanwhile is read in its old or its new state.
func (c *Client) scan(ctx context.Context, stream, filter string, each func(subject string, data []byte) error) error {
	seen := &scanned{seed: maphash.MakeSeed(), subjects: map[uint64]struct{}{}}
	f := &follower{
		c: c, stream: stream, filter: filter, scanned: seen,
		each: func(m jetstream.Msg) error {
			if seen.again(m.Subject()) || deleted(m) {
				return nil
			}
			return each(m.Subject(), m.Data())
		},
		current: func() error { return errEnough },
	}
	return f.run(ctx)
}

// list scans records and decodes them. It logs and skips unreadable ones.
func list[T any](
	ctx context.Context, c *Client, stream, filter string, decode func([]byte) (T, error), each func(T),
) error {
	return c.scan(ctx, stream, filter, func(subject string, data []byte) error {
		r, err := decode(data)
		if err != nil {
			c.log.Warn().Err(err).Str("subject", subject).Msg("record skipped")
			return nil
		}
		each(r)
		return nil
	})
}

// headerOperation is set on a message that marks a key as deleted.
const headerOperation = "KV-Operation"

// deleted reports whether a message marks its key or its letter as deleted.
func deleted(m jetstream.Msg) bool {
	h := m.Headers()
	return h.Get(headerOperation) != "" || h.Get("Nats-Marker-Reason") != ""
}
