package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/score"
)

// RunState is where a run is.
type RunState string

// The states of a run.
const (
	RunPlanned   RunState = "planned"   // manifest written, jobs not all queued
	RunRunning   RunState = "running"   // jobs queued
	RunPaused    RunState = "paused"    //
	RunComplete  RunState = "complete"  // every output is there and checked
	RunFailed    RunState = "failed"    // jobs are dead, or the check failed
	RunCancelled RunState = "cancelled" //
)

// Final reports whether nothing happens to a run in this state by itself.
func (s RunState) Final() bool {
	return s == RunComplete || s == RunFailed || s == RunCancelled
}

// RunRecord is a manifest's header without its files, and how the run fares:
// bucket surprisal_runs, key <run>. The manifest itself is in OUT.
type RunRecord struct {
	Version int      `json:"v"`
	ID      string   `json:"id"`
	Created string   `json:"created"` // RFC 3339, UTC, as in the manifest
	Program string   `json:"program"`
	Out     string   `json:"out"`
	Inputs  []string `json:"inputs"` // the first MaxRunInputs of them
	// InputCount is how many there were.
	InputCount   int           `json:"input_count"`
	Options      score.Options `json:"options"`
	Model        score.Model   `json:"model"`
	ConfigDigest string        `json:"config_digest"`
	Files        int           `json:"files"`
	Jobs         int           `json:"jobs"`
	Rows         int64         `json:"rows"`
	Tokens       int64         `json:"estimated_tokens"`
	State        RunState      `json:"state"`
	// Drop: the run was cancelled and workers are to drop what they hold of it.
	Drop bool `json:"drop,omitempty"`
	// Priority: workers take jobs of a run with a higher one first.
	Priority int `json:"priority,omitempty"`
	// Config is what was asked for when the run was queued; what is zero was not.
	Config RunConfig `json:"config,omitzero"`
	// Epoch is the last that NextEpoch gave.
	Epoch   uint64    `json:"epoch"`
	Updated time.Time `json:"updated"`
	// Error says why a run failed.
	Error string `json:"error,omitempty"`
}

// MaxRunInputs bounds the inputs kept in a run's record.
const MaxRunInputs = 16

// NewRunRecord is the record of a run just planned.
func NewRunRecord(m *score.Manifest) RunRecord {
	r := RunRecord{
		Version: recordVersion, ID: m.Run, Created: m.Created, Program: m.Program, Out: m.Out,
		Inputs: slices.Clone(m.Inputs[:min(len(m.Inputs), MaxRunInputs)]), InputCount: len(m.Inputs),
		Options: m.Options, Model: m.Model, ConfigDigest: m.ConfigDigest, Files: len(m.Files), State: RunPlanned,
	}
	for i := range m.Files {
		f := &m.Files[i]
		r.Jobs, r.Rows, r.Tokens = r.Jobs+len(f.Cuts), r.Rows+f.Rows, r.Tokens+f.Tokens
	}
	return r
}

func (r RunRecord) encode() ([]byte, error) {
	r.Version, r.Updated, r.Error = recordVersion, time.Now().UTC(), clean(r.Error, maxError)
	if !score.ValidRunID(r.ID) {
		return nil, fmt.Errorf("%q is not a run id", r.ID)
	}
	return json.Marshal(r)
}

// DecodeRunRecord reads a record, which may be anything.
func DecodeRunRecord(b []byte) (RunRecord, error) {
	var r RunRecord
	if err := decodeRecord(b, &r, func() int { return r.Version }); err != nil {
		return RunRecord{}, fmt.Errorf("run record: %w", err)
	}
	if !score.ValidRunID(r.ID) {
		return RunRecord{}, fmt.Errorf("run record: %w: id %q", ErrBadRecord, clean(r.ID, 64))
	}
	return r, nil
}

// PutRun records a new run; ErrRunExists if there is a record.
func (c *Client) PutRun(ctx context.Context, r RunRecord) error {
	b, err := r.encode()
	if err != nil {
		return fmt.Errorf("record run: %w", err)
	}
	// Made by a try whose answer was lost, it counts as one that was there.
	err = read(ctx, func(ctx context.Context) error {
		kv, err := c.bucket(ctx, RunBucket)
		if err == nil {
			_, err = kv.Create(ctx, r.ID, b)
		}
		return err
	})
	if lostRace(err) {
		return fmt.Errorf("record run %s: %w", r.ID, ErrRunExists)
	}
	return c.fail("record run "+r.ID, err)
}

// Run is a run's record; ErrNoRun if there is none.
func (c *Client) Run(ctx context.Context, id string) (RunRecord, error) {
	r, _, err := c.run(ctx, id)
	return r, err
}

func (c *Client) run(ctx context.Context, id string) (RunRecord, uint64, error) {
	if !score.ValidRunID(id) {
		return RunRecord{}, 0, fmt.Errorf("%w: %q is not a run id", ErrNoRun, id)
	}
	var e jetstream.KeyValueEntry
	var err error
	for try := 0; ; try++ {
		err = read(ctx, func(ctx context.Context) (err error) {
			e, err = c.lookUp(ctx, RunBucket, id)
			return err
		})
		// Of a cluster any node may answer, one too that has not caught up yet.
		if !errors.Is(err, jetstream.ErrKeyNotFound) || try == 5 || ctx.Err() != nil {
			break
		}
		conn.Sleep(ctx, conn.Jitter(20*time.Millisecond<<try))
	}
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return RunRecord{}, 0, fmt.Errorf("%w: %s", ErrNoRun, id)
	}
	if err != nil {
		return RunRecord{}, 0, c.fail("read run "+id, err)
	}
	r, err := DecodeRunRecord(e.Value())
	return r, e.Revision(), err
}

// Runs lists the runs' records, oldest first.
func (c *Client) Runs(ctx context.Context) ([]RunRecord, error) {
	var runs []RunRecord
	err := list(ctx, c, "KV_"+RunBucket, "$KV."+RunBucket+".*", DecodeRunRecord, func(r RunRecord) { runs = append(runs, r) })
	if err != nil {
		return nil, c.fail("list runs", err)
	}
	slices.SortFunc(runs, func(a, b RunRecord) int {
		return strings.Compare(a.Created+" "+a.ID, b.Created+" "+b.ID)
	})
	return runs, nil
}

// UpdateRun changes a run's record by compare and swap: change may be called more
// than once, each time with the newest record, and where a reply gets lost on a
// record that has the change already. Its error ends the update and is
// returned as it is.
func (c *Client) UpdateRun(ctx context.Context, id string, change func(*RunRecord) error) (RunRecord, error) {
	ctx = perRequest{ctx}
	for try := 0; ; try++ {
		r, rev, err := c.run(ctx, id)
		if err != nil {
			return r, err
		}
		if err := change(&r); err != nil {
			return r, err
		}
		r.ID = id
		b, err := r.encode()
		if err != nil {
			return r, fmt.Errorf("update run: %w", err)
		}
		kv, err := c.bucket(ctx, RunBucket)
		if err == nil {
			_, err = kv.Update(ctx, id, b, rev)
		}
		if err == nil {
			return r, nil
		}
		// With a lost reply the change may be made twice: change must bear that.
		if !(lostRace(err) || isBroken(err)) || try == 20 || ctx.Err() != nil {
			return r, c.fail("update run "+id, err)
		}
		conn.Sleep(ctx, conn.Jitter(min(10*time.Millisecond<<try, 200*time.Millisecond)))
	}
}

// NextEpoch numbers a new submission of a run.
func (c *Client) NextEpoch(ctx context.Context, run string) (uint64, error) {
	r, err := c.UpdateRun(ctx, run, func(r *RunRecord) error { r.Epoch++; return nil })
	return r.Epoch, err
}
