package jobs

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"surprisal/internal/jobs/record"
)

// TestScanWhileRecordsChange: a list has every record once while all of them
// change all the time.
func TestScanWhileRecordsChange(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	const n, looks = 200, 40
	ctx, cancel := context.WithCancel(r.ctx)
	put := func(ctx context.Context, i int) error {
		return r.c.PutWorker(ctx, record.Worker{ID: fmt.Sprintf("w%03d", i)})
	}
	for i := range n {
		if err := put(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for from := range 4 {
		wg.Go(func() {
			for i := from; ctx.Err() == nil; i = (i + 4) % n {
				if err := put(ctx, i); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	for range looks {
		workers, err := r.c.Workers(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for _, w := range workers {
			seen[w.ID]++
		}
		if len(workers) != n || len(seen) != n {
			t.Errorf("%d workers, %d of them different, of %d", len(workers), len(seen), n)
		}
	}
	cancel()
	wg.Wait()
}
