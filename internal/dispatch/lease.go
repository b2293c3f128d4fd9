package dispatch

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"surprisal/internal/jobs"
	"surprisal/internal/place"
	"surprisal/internal/store"
	"surprisal/internal/usage"
)

// A lease is OUT's lock if OUT is in a bucket: a file that its holder rewrites at
// intervals, on condition that it has not changed. A lease that stays the same for
// leaseLasts has lost its holder. Scores don't depend on the lock: a score file is
// put only if there is none.
const (
	leaseRenew = 10 * time.Second
	leaseLasts = 40 * time.Second
	leaseLimit = 64 << 10 // bytes read of it
)

type lease struct {
	Host  string `json:"host"`
	PID   int    `json:"pid"`
	Boot  string `json:"boot,omitempty"` // boot ID and PID namespace, in which PID is valid
	Token string `json:"token"`
	Time  string `json:"time"` // RFC 3339, of the last renewal, for people
}

func newLease() lease {
	host, _ := os.Hostname() // for people, and to recognise a dead holder sooner
	return lease{Host: host, PID: os.Getpid(), Boot: jobs.Machine(), Token: rand.Text()}
}

// dead reports whether the holder was a process on this machine that has exited.
func (l lease) dead(mine lease) bool {
	return l.Boot != "" && l.Boot == mine.Boot && l.Host == mine.Host && l.PID > 0 &&
		errors.Is(unix.Kill(l.PID, 0), unix.ESRCH)
}

func (l lease) put(ctx context.Context, name string, when store.Condition) (store.Info, error) {
	l.Time = time.Now().UTC().Format(time.RFC3339)
	b, err := json.Marshal(l)
	if err != nil {
		return store.Info{}, err
	}
	return store.PutBytes(ctx, name, append(b, '\n'), when)
}

// leaseOut is LockOut for a bucket.
func leaseOut(ctx context.Context, out string, log zerolog.Logger) (unlock func(), err error) {
	name := place.Join(out, lockName)
	mine := newLease()
	info, err := mine.put(ctx, name, store.Condition{Absent: true})
	if errors.Is(err, fs.ErrExist) {
		info, err = takeOver(ctx, out, name, mine, log)
	}
	if err != nil {
		var use *usage.Error
		if errors.As(err, &use) || ctx.Err() != nil {
			return nil, err
		}
		return nil, usage.Errorf("--out: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		hold(ctx, name, mine, &info, log)
	}()
	return func() {
		cancel()
		<-done
		ctx, cancel := context.WithTimeout(context.Background(), leaseRenew)
		defer cancel()
		// Only if it is still ours. Nobody takes over so fresh a lease in between.
		if _, there, err := readLease(ctx, name); err == nil && there.Version == info.Version {
			if err := store.Remove(ctx, name); err != nil {
				log.Warn().Err(err).Msg("lock file in the output bucket not removed; it expires by itself")
			}
		}
	}, nil
}

// hold renews the lease until ctx ends or another dispatcher has it.
func hold(ctx context.Context, name string, mine lease, info *store.Info, log zerolog.Logger) {
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		again, err := mine.put(ctx, name, store.Condition{Version: info.Version})
		if errors.Is(err, store.ErrChanged) || errors.Is(err, fs.ErrNotExist) {
			// It may be our own renewal, whose reply was lost.
			if l, there, rerr := readLease(ctx, name); rerr == nil && l.Token == mine.Token {
				again, err = there, nil
			}
		}
		switch {
		case err == nil:
			*info = again
		case ctx.Err() != nil:
			return
		case errors.Is(err, store.ErrChanged) || errors.Is(err, fs.ErrNotExist):
			log.Error().Err(err).Msg("another dispatcher has taken over the output bucket; both may queue the same " +
				"jobs, with the same scores")
			return
		default:
			log.Warn().Err(err).Msg("lock in the output bucket not renewed; retrying")
		}
	}
}

// takeOver takes the lease once it is certain that the holder is gone.
func takeOver(ctx context.Context, out, name string, mine lease, log zerolog.Logger) (store.Info, error) {
	l, first, err := readLease(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return mine.put(ctx, name, store.Condition{Absent: true})
	}
	if err != nil {
		return first, err
	}
	if !l.dead(mine) {
		log.Warn().Str("host", l.Host).Int("pid", l.PID).Str("renewed", l.Time).Dur("wait", leaseLasts).
			Msg("another dispatcher holds the output bucket; waiting to see whether it is still running")
		for deadline := time.Now().Add(leaseLasts); time.Now().Before(deadline); {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return first, context.Cause(ctx)
			}
			there, err := store.Stat(ctx, name)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return mine.put(ctx, name, store.Condition{Absent: true})
			case err != nil:
				return first, err
			case there.Version != first.Version:
				return first, usage.Errorf("--out %s: another dispatcher is using it (pid %d on %s): wait until it "+
					"ends, or stop it", out, l.PID, l.Host)
			}
		}
	}
	info, err := mine.put(ctx, name, store.Condition{Version: first.Version})
	if errors.Is(err, store.ErrChanged) {
		return info, usage.Errorf("--out %s: another dispatcher is using it: wait until it ends, or stop it", out)
	}
	return info, err
}

func readLease(ctx context.Context, name string) (l lease, info store.Info, err error) {
	o, err := store.Open(ctx, name)
	if err != nil {
		return l, info, err
	}
	defer o.Close()
	b, err := io.ReadAll(io.NewSectionReader(o.Reader(ctx), 0, min(o.Size, leaseLimit)))
	if err != nil {
		return l, o.Info, err
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return l, o.Info, fmt.Errorf("%s is not a dispatcher's lock file: %w", name, err)
	}
	return l, o.Info, nil
}
