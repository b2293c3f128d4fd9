package conn

import (
	"context"
	"time"
)

// sleep waits for d or ctx.
func Sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// jitter spreads d over 0.75 d .. 1.25 d. No two processes wait from the same
// nanosecond on, and under a test's virtual clock the same waits come again.
func Jitter(d time.Duration) time.Duration {
	x := uint64(time.Now().UnixNano()) * 0x9e3779b97f4a7c15
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	return d*3/4 + time.Duration((x^x>>32)%uint64(d/2+1))
}
