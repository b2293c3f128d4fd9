package jobs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// WorkerRecord is a worker's sign of life: bucket surprisal_workers, key <id>. It
// vanishes WorkerTTL after the last PutWorker.
type WorkerRecord struct {
	Format       int           `json:"v"`  // of the record; set by PutWorker
	ID           string        `json:"id"` // 1 to 64 of a-z, A-Z, 0-9, - and _
	Host         string        `json:"host"`
	PID          int           `json:"pid"`
	Engine       string        `json:"engine"`
	Device       string        `json:"device"`
	Version      string        `json:"version"`
	Started      time.Time     `json:"started"`
	Updated      time.Time     `json:"updated"`
	Progress     []JobProgress `json:"progress,omitempty"` // of the jobs in hand
	JobsDone     int64         `json:"jobs_done"`
	TokensDone   int64         `json:"tokens_done"`
	TokensPerSec float64       `json:"tokens_per_second"`
	Draining     bool          `json:"draining,omitempty"`
	GPU          *GPUSample    `json:"gpu,omitempty"` // nil: it scores on the CPU, or nothing is known of the GPU
	// Stalled says that its engine makes no progress: the worker is about to end.
	Stalled string `json:"stalled,omitempty"`
}

// GPUSample is a worker's GPU as last sampled. What the board does not tell is nil.
type GPUSample struct {
	UUID        string   `json:"uuid"` // as nvidia-smi -L has it; a MIG device's starts with MIG-
	Name        string   `json:"name"`
	Index       int      `json:"index"`                         // among the machine's, as NVML counts
	Utilization *float64 `json:"utilization_ratio,omitempty"`   // 0 to 1, of the time that a kernel ran
	Power       *float64 `json:"power_watts,omitempty"`         //
	PowerLimit  *float64 `json:"power_limit_watts,omitempty"`   //
	MemoryUsed  *uint64  `json:"memory_used_bytes,omitempty"`   // by all processes
	MemoryTotal *uint64  `json:"memory_total_bytes,omitempty"`  //
	Temperature *float64 `json:"temperature_celsius,omitempty"` // of the core
}

// JobProgress is how far a worker has come with a job in hand.
type JobProgress struct {
	Run       string `json:"run"`
	Job       string `json:"job"`
	Documents int64  `json:"documents"`
	Tokens    int64  `json:"tokens"`
}

// WorkerTTL is how long a worker is listed after its last sign of life; PutWorker
// is due every WorkerTTL/3.
const WorkerTTL = 30 * time.Second

// PutWorker records a worker's sign of life.
func (c *Client) PutWorker(ctx context.Context, w WorkerRecord) error {
	if !validToken(w.ID) {
		return fmt.Errorf("record worker: id %q: want 1 to 64 of a-z, A-Z, 0-9, - and _", clean(w.ID, 80))
	}
	w.Format, w.Updated, w.Stalled = recordVersion, time.Now().UTC(), clean(w.Stalled, maxAttemptError)
	b, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("record worker: %w", err)
	}
	ctx = perRequest{ctx}
	kv, err := c.bucket(ctx, WorkerBucket)
	if err == nil {
		_, err = kv.Put(ctx, w.ID, b)
	}
	return c.fail("record worker "+w.ID, err)
}

// RemoveWorker removes the record, on a clean stop.
func (c *Client) RemoveWorker(ctx context.Context, id string) error {
	ctx = perRequest{ctx}
	kv, err := c.bucket(ctx, WorkerBucket)
	if err == nil {
		err = kv.Delete(ctx, id)
	}
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	return c.fail("remove worker "+id, err)
}

func decodeWorkerRecord(b []byte) (w WorkerRecord, err error) {
	err = decodeRecord(b, &w, func() int { return w.Format })
	return w, err
}

// Workers lists the workers alive, by id.
func (c *Client) Workers(ctx context.Context) ([]WorkerRecord, error) {
	var workers []WorkerRecord
	err := list(ctx, c, "KV_"+WorkerBucket, "$KV."+WorkerBucket+".*", decodeWorkerRecord, func(w WorkerRecord) { workers = append(workers, w) })
	if err != nil {
		return nil, c.fail("list workers", err)
	}
	slices.SortStableFunc(workers, func(a, b WorkerRecord) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), b.Updated.Compare(a.Updated))
	})
	// One that signs meanwhile may be told twice.
	return slices.CompactFunc(workers, func(a, b WorkerRecord) bool { return a.ID == b.ID }), nil
}
