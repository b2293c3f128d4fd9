package jobs

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// diff collects the differences of a stream, bucket or consumer from what it should be.
type diff []string

func (d *diff) eq(field string, have, want any) {
	if !reflect.DeepEqual(have, want) {
		*d = append(*d, fmt.Sprintf("%s is %v, want %v", field, have, want))
	}
}

// meta compares only our keys: the server adds some of its own.
func (d *diff) meta(have, want map[string]string) {
	keys := make([]string, 0, len(want))
	for k := range want {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		d.eq(k, have[k], want[k])
	}
}

func (d diff) err(what string) error {
	if len(d) == 0 {
		return nil
	}
	return &DriftError{What: what, Diffs: d}
}

// The server's errors for a consumer whose subjects overlap those of another one.
const (
	codeUnfiltered jetstream.ErrorCode = 10099
	codeNotUnique  jetstream.ErrorCode = 10100
)

func isOverlap(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == codeUnfiltered || api.ErrorCode == codeNotUnique)
}

// overlapping finds the consumer that takes the run's jobs: one that an earlier version
// of this program made for all runs, or one that a person made.
func (c *Client) overlapping(ctx context.Context, run string, cause error) error {
	s, err := c.js.Stream(perRequest{ctx}, jobStream)
	if err != nil {
		return cause
	}
	names := s.ConsumerNames(perRequest{ctx})
	for name := range names.Name() {
		if !strings.HasPrefix(name, durablePrefix) {
			return &OldConsumerError{Stream: jobStream, Consumer: name}
		}
	}
	return cause
}

// ensureStream creates the stream if it is missing and create is set, and otherwise
// compares it.
func (c *Client) ensureStream(ctx context.Context, want jetstream.StreamConfig, create bool) error {
	what := "stream " + want.Name
	s, err := c.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) && create {
		s, err = c.js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // made by another dispatcher since
			s, err = c.js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	have := s.CachedInfo().Config
	var d diff
	d.eq("subjects", have.Subjects, want.Subjects)
	d.eq("retention", have.Retention, want.Retention)
	d.eq("storage", have.Storage, want.Storage)
	d.eq("replicas", have.Replicas, want.Replicas)
	d.eq("discard", have.Discard, want.Discard)
	d.eq("discard new per subject", have.DiscardNewPerSubject, want.DiscardNewPerSubject)
	d.eq("max messages per subject", have.MaxMsgsPerSubject, want.MaxMsgsPerSubject)
	d.eq("duplicate window", have.Duplicates, want.Duplicates)
	d.eq("max age", have.MaxAge, want.MaxAge)
	if want.MaxMsgSize != 0 {
		d.eq("max message size", have.MaxMsgSize, want.MaxMsgSize)
	}
	d.meta(have.Metadata, want.Metadata)
	return d.err(what)
}

func (c *Client) ensureBucket(ctx context.Context, want jetstream.KeyValueConfig, create bool) error {
	what := "bucket " + want.Bucket
	kv, err := c.js.KeyValue(ctx, want.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) && create {
		kv, err = c.js.CreateKeyValue(ctx, want)
		if errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = c.js.KeyValue(ctx, want.Bucket)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	st, err := kv.Status(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	have := st.Config()
	var d diff
	d.eq("history", have.History, want.History)
	d.eq("max value size", have.MaxValueSize, want.MaxValueSize)
	d.eq("TTL", have.TTL, want.TTL)
	d.eq("storage", have.Storage, want.Storage)
	d.eq("replicas", have.Replicas, want.Replicas)
	return d.err(what)
}

func (c *Client) ensureConsumer(ctx context.Context, stream string, want jetstream.ConsumerConfig, create bool) error {
	what := "consumer " + want.Durable + " of stream " + stream
	k, err := c.js.Consumer(ctx, stream, want.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) && create {
		// Create, never CreateOrUpdate: that would rewrite one made since.
		k, err = c.js.CreateConsumer(ctx, stream, want)
		if errors.Is(err, jetstream.ErrConsumerExists) {
			k, err = c.js.Consumer(ctx, stream, want.Durable)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	have := k.CachedInfo().Config
	var d diff
	d.eq("ack policy", have.AckPolicy, want.AckPolicy)
	d.eq("AckWait", have.AckWait, want.AckWait)
	d.eq("MaxDeliver", have.MaxDeliver, want.MaxDeliver)
	d.eq("MaxAckPending", have.MaxAckPending, want.MaxAckPending)
	d.eq("BackOff steps", len(have.BackOff), 0)
	d.eq("filters", len(have.FilterSubjects)+len(have.FilterSubject), 0)
	d.meta(have.Metadata, want.Metadata)
	return d.err(what)
}

// bucket is the handle of a bucket, which is looked up once.
func (c *Client) bucket(ctx context.Context, name string) (jetstream.KeyValue, error) {
	c.mu.Lock()
	kv := c.kvs[name]
	c.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	kv, err := c.js.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kvs[name] = kv
	return kv, nil
}

// lookUp reads a key of a bucket. If the server has lost the bucket, nothing answers;
// the error says then that the bucket does not exist.
func (c *Client) lookUp(ctx context.Context, name, key string) (jetstream.KeyValueEntry, error) {
	kv, err := c.bucket(ctx, name)
	if err != nil {
		return nil, err
	}
	e, err := kv.Get(ctx, key)
	if errors.Is(err, nats.ErrNoResponders) {
		c.mu.Lock()
		delete(c.kvs, name)
		c.mu.Unlock()
		if _, gone := c.bucket(ctx, name); gone != nil {
			return nil, gone
		}
	}
	return e, err
}
