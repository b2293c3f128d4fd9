package conn

import (
	"context"
	"time"
)

// Sleep waits for d or ctx.
func Sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Jitter gives a duration from 0.75 d to 1.25 d. It derives it from the time, which
// differs between processes, and repeats under a test's virtual clock.
func Jitter(d time.Duration) time.Duration {
	x := uint64(time.Now().UnixNano()) * 0x9e3779b97f4a7c15
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	return d*3/4 + time.Duration((x^x>>32)%uint64(d/2+1))
}
