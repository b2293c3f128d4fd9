package dispatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"surprisal/internal/place"
	"surprisal/internal/usage"
)

// lockName is hidden, so that readers of OUT do not take it for data.
const lockName = ".surprisal.lock"

// LockOut keeps two dispatchers on one machine, or on one NFS server, from using the
// same OUT. The kernel releases the lock when the process ends, however it ends.
func LockOut(ctx context.Context, out string, log zerolog.Logger) (unlock func(), err error) {
	if place.IsURL(out) {
		return leaseOut(ctx, out, log)
	}
	if err := os.MkdirAll(out, 0o777); err != nil {
		return nil, usage.Errorf("--out: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(out, lockName), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, usage.Errorf("--out: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, usage.Errorf("--out %s: another dispatcher is using it: wait until it ends, or stop it", out)
		}
		return nil, fmt.Errorf("lock %s: %w", out, err)
	}
	return func() { _ = f.Close() }, nil
}
