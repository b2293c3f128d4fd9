package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// PutRun records a new run; ErrRunExists if there is a record.
func (c *Client) PutRun(ctx context.Context, r record.Run) error {
	b, err := r.Encode()
	if err != nil {
		return fmt.Errorf("record run: %w", err)
	}
	// A record that an earlier try created, whose reply was lost, counts as existing.
	err = read(ctx, func(ctx context.Context) error {
		kv, err := c.bucket(ctx, runBucket)
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
func (c *Client) Run(ctx context.Context, id string) (record.Run, error) {
	r, _, err := c.run(ctx, id)
	return r, err
}

func (c *Client) run(ctx context.Context, id string) (record.Run, uint64, error) {
	if !score.ValidRunID(id) {
		return record.Run{}, 0, fmt.Errorf("%w: %q is not a run ID", ErrNoRun, id)
	}
	var e jetstream.KeyValueEntry
	var err error
	for try := 0; ; try++ {
		err = read(ctx, func(ctx context.Context) (err error) {
			e, err = c.lookUp(ctx, runBucket, id)
			return err
		})
		// Of a cluster any node may answer, one too that has not caught up yet.
		if !errors.Is(err, jetstream.ErrKeyNotFound) || try == 5 || ctx.Err() != nil {
			break
		}
		conn.Sleep(ctx, conn.Jitter(20*time.Millisecond<<try))
	}
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return record.Run{}, 0, fmt.Errorf("%w: %s", ErrNoRun, id)
	}
	if err != nil {
		return record.Run{}, 0, c.fail("read run "+id, err)
	}
	r, err := record.DecodeRun(e.Value())
	return r, e.Revision(), err
}

// Runs lists the runs' records, oldest first.
func (c *Client) Runs(ctx context.Context) ([]record.Run, error) {
	var runs []record.Run
	err := list(ctx, c, "KV_"+runBucket, "$KV."+runBucket+".*", record.DecodeRun,
		func(r record.Run) { runs = append(runs, r) })
	if err != nil {
		return nil, c.fail("list runs", err)
	}
	slices.SortFunc(runs, func(a, b record.Run) int {
		return strings.Compare(a.Created+" "+a.ID, b.Created+" "+b.ID)
	})
	return runs, nil
}

// UpdateRun changes a run's record by compare and swap: change may be called more than
// once, each time with the newest record, which already has the change if a reply was
// lost. An error of change ends the update and is returned unchanged.
func (c *Client) UpdateRun(ctx context.Context, id string, change func(*record.Run) error) (record.Run, error) {
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
		b, err := r.Encode()
		if err != nil {
			return r, fmt.Errorf("update run: %w", err)
		}
		kv, err := c.bucket(ctx, runBucket)
		if err == nil {
			_, err = kv.Update(ctx, id, b, rev)
		}
		if err == nil {
			return r, nil
		}
		// If a reply is lost, change is applied twice.
		if !(lostRace(err) || isBroken(err)) || try == 20 || ctx.Err() != nil {
			return r, c.fail("update run "+id, err)
		}
		conn.Sleep(ctx, conn.Jitter(min(10*time.Millisecond<<try, 200*time.Millisecond)))
	}
}

// NextEpoch gives the number of a new submission of a run.
func (c *Client) NextEpoch(ctx context.Context, run string) (uint64, error) {
	r, err := c.UpdateRun(ctx, run, func(r *record.Run) error { r.Epoch++; return nil })
	return r.Epoch, err
}
