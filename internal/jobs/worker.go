package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/record"
)

// WorkerTTL is how long a worker is listed after its last PutWorker, which is due every
// WorkerTTL/3.
const WorkerTTL = 30 * time.Second

// PutWorker records that a worker is alive.
func (c *Client) PutWorker(ctx context.Context, w record.Worker) error {
	if !record.ValidToken(w.ID) {
		return fmt.Errorf("record worker: ID %q: must be 1 to 64 of a-z, A-Z, 0-9, - and _", record.Clean(w.ID, 80))
	}
	b, err := w.Encode()
	if err != nil {
		return fmt.Errorf("record worker: %w", err)
	}
	ctx = perRequest{ctx}
	kv, err := c.bucket(ctx, workerBucket)
	if err == nil {
		_, err = kv.Put(ctx, w.ID, b)
	}
	return c.fail("record worker "+w.ID, err)
}

// RemoveWorker deletes the record when a worker exits.
func (c *Client) RemoveWorker(ctx context.Context, id string) error {
	ctx = perRequest{ctx}
	kv, err := c.bucket(ctx, workerBucket)
	if err == nil {
		err = kv.Delete(ctx, id)
	}
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	return c.fail("remove worker "+id, err)
}

// Workers lists the workers that are alive, by ID.
func (c *Client) Workers(ctx context.Context) ([]record.Worker, error) {
	var workers []record.Worker
	err := list(ctx, c, "KV_"+workerBucket, "$KV."+workerBucket+".*", record.DecodeWorker,
		func(w record.Worker) { workers = append(workers, w) })
	if err != nil {
		return nil, c.fail("list workers", err)
	}
	slices.SortStableFunc(workers, func(a, b record.Worker) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), b.Updated.Compare(a.Updated))
	})
	// A worker that updates its record meanwhile may be read twice.
	return slices.CompactFunc(workers, func(a, b record.Worker) bool { return a.ID == b.ID }), nil
}
