package simnats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func (j *js) KeyValue(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	s, err := j.Stream(ctx, "KV_"+bucket)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = jetstream.ErrBucketNotFound
	}
	if err != nil {
		return nil, err
	}
	return &kv{j: j, bucket: bucket, s: s.(*clientStream)}, nil
}

func (j *js) CreateKeyValue(ctx context.Context, cfg jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	s, err := j.CreateStream(ctx, jetstream.StreamConfig{
		Name: "KV_" + cfg.Bucket, Subjects: []string{"$KV." + cfg.Bucket + ".>"},
		MaxMsgsPerSubject: max(int64(cfg.History), 1),
		MaxAge:            cfg.TTL, MaxMsgSize: cfg.MaxValueSize, Storage: cfg.Storage, Replicas: max(cfg.Replicas, 1),
		Discard: jetstream.DiscardNew, AllowRollup: true,
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		err = jetstream.ErrBucketExists
	}
	if err != nil {
		return nil, err
	}
	return &kv{j: j, bucket: cfg.Bucket, s: s.(*clientStream)}, nil
}

// kv is a jetstream.KeyValue, made of a stream as the real one is.
type kv struct {
	jetstream.KeyValue
	j      *js
	bucket string
	s      *clientStream
}

type kvEntry struct {
	jetstream.KeyValueEntry
	key string
	m   *jetstream.RawStreamMsg
}

func (e *kvEntry) Key() string        { return e.key }
func (e *kvEntry) Value() []byte      { return e.m.Data }
func (e *kvEntry) Revision() uint64   { return e.m.Sequence }
func (e *kvEntry) Created() time.Time { return e.m.Time }

func (v *kv) subject(key string) string { return "$KV." + v.bucket + "." + key }

// get is the newest entry; with ErrKeyDeleted where that is a deletion.
func (v *kv) get(ctx context.Context, key string) (*kvEntry, error) {
	m, err := v.s.GetLastMsgForSubject(ctx, v.subject(key))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, jetstream.ErrKeyNotFound
	}
	if err != nil {
		return nil, err
	}
	e := &kvEntry{key: key, m: m}
	if m.Header.Get("KV-Operation") != "" {
		return e, jetstream.ErrKeyDeleted
	}
	return e, nil
}

func (v *kv) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	e, err := v.get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyDeleted) {
		return nil, jetstream.ErrKeyNotFound
	}
	if err != nil {
		return nil, err
	}
	return e, nil
}

func (v *kv) put(ctx context.Context, key string, value []byte, header nats.Header) (uint64, error) {
	m := &nats.Msg{Subject: v.subject(key), Data: slices.Clone(value), Header: header}
	a, err := v.j.publish(ctx, m)
	if err != nil {
		return 0, err
	}
	return a.Sequence, nil
}

func (v *kv) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return v.put(ctx, key, value, nats.Header{})
}

func (v *kv) swap(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return v.put(ctx, key, value, nats.Header{jetstream.ExpectedLastSubjSeqHeader: {fmt.Sprint(revision)}})
}

func (v *kv) Create(ctx context.Context, key string, value []byte, _ ...jetstream.KVCreateOpt) (uint64, error) {
	rev, err := v.swap(ctx, key, value, 0)
	if err == nil {
		return rev, nil
	}
	if e, gerr := v.get(ctx, key); errors.Is(gerr, jetstream.ErrKeyDeleted) {
		return v.swap(ctx, key, value, e.Revision())
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		return 0, fmt.Errorf("%w: key exists", err)
	}
	return 0, err
}

func (v *kv) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	rev, err := v.swap(ctx, key, value, revision)
	if errors.Is(err, jetstream.ErrKeyExists) {
		err = fmt.Errorf("%w: %w", err, jetstream.ErrKeyRevisionMismatch)
	}
	return rev, err
}

func (v *kv) Delete(ctx context.Context, key string, _ ...jetstream.KVDeleteOpt) error {
	_, err := v.put(ctx, key, nil, nats.Header{"KV-Operation": {"DEL"}})
	return err
}

func (v *kv) Status(ctx context.Context) (jetstream.KeyValueStatus, error) {
	s, err := v.j.Stream(ctx, v.s.name)
	if err != nil {
		return nil, err
	}
	return &kvStatus{v: v, cfg: s.CachedInfo().Config}, nil
}

type kvStatus struct {
	jetstream.KeyValueStatus
	v   *kv
	cfg jetstream.StreamConfig
}

func (s *kvStatus) Config() jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: s.v.bucket, History: uint8(s.cfg.MaxMsgsPerSubject), MaxValueSize: s.cfg.MaxMsgSize, TTL: s.cfg.MaxAge,
		Storage: s.cfg.Storage, Replicas: s.cfg.Replicas,
	}
}
