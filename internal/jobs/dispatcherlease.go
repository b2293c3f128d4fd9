package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// LeaseTTL is how long others respect a dispatcher's lease after its last renewal. A
// lease is renewed every LeaseTTL/4, and its holder considers it lost LeaseTTL/2 after
// the last renewal.
const LeaseTTL = 20 * time.Second

// HeldError: another dispatcher has the run's lease. It matches ErrHeld.
type HeldError struct {
	Run string
	By  record.Dispatcher
}

// Error names the dispatcher, in one line.
func (e *HeldError) Error() string {
	return fmt.Sprintf("run %s is in use by another %s: wait until it ends, or stop it", e.Run, e.By)
}

// Is makes errors.Is(err, ErrHeld) true.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

// DispatcherLease is the right to requeue jobs of a run and to finish the run. It is
// renewed until it is released or lost.
type DispatcherLease struct {
	c   *Client
	run string
	me  record.Dispatcher

	mu      sync.Mutex
	rev     uint64
	renewed time.Time // by this process's own clock
	lost    chan struct{}
	once    sync.Once
	stop    context.CancelFunc
	done    chan struct{}
}

// AcquireOptions is how a dispatcher asks for a run's lease.
type AcquireOptions struct {
	Command string // for the record: "submit", "wait", …
	// Yields: a dispatcher that has something to do may take the lease over; this one
	// only watches the run.
	Yields bool
	// Patient waits for up to LeaseTTL to find out whether the holder still renews its lease.
	Patient bool
}

// AcquireRun takes the run's lease, or returns a *HeldError that names the holder.
// It takes over from a holder that yields, from one whose process ended on this
// machine, and, if Patient, from one that does not renew the lease for LeaseTTL by
// this process's own clock.
func (c *Client) AcquireRun(ctx context.Context, run string, opt AcquireOptions) (*DispatcherLease, error) {
	if !score.ValidRunID(run) {
		return nil, fmt.Errorf("take run: %q is not a run ID", run)
	}
	host, _ := os.Hostname() // for people; the owner's name is what counts
	me := record.Dispatcher{
		Owner: rand.Text(), Host: host, PID: os.Getpid(), Machine: Machine(), Command: opt.Command,
		Since: time.Now().UTC(), Yields: opt.Yields,
	}
	value, err := me.Encode()
	if err != nil {
		return nil, err
	}
	claim := claim{run: run, me: me, value: value}
	for {
		var rev uint64
		var by record.Dispatcher
		err := read(ctx, func(ctx context.Context) error {
			kv, err := c.bucket(ctx, leaseBucket)
			if err != nil {
				return err
			}
			rev, by, err = claim.try(ctx, kv)
			return err
		})
		if err != nil {
			return nil, c.fail("take run "+run, err)
		}
		if by.Owner == me.Owner {
			return c.holdLease(run, me, value, rev), nil
		}
		if !opt.Patient {
			return nil, &HeldError{Run: run, By: by}
		}
		if rev != claim.seen {
			if claim.seen != 0 { // it was renewed: its holder lives
				return nil, &HeldError{Run: run, By: by}
			}
			claim.seen, claim.since = rev, time.Now()
		}
		conn.Sleep(ctx, LeaseTTL/20)
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// claim is an attempt to take a run's lease.
type claim struct {
	run   string
	me    record.Dispatcher
	value []byte    // me, encoded
	seen  uint64    // revision of another's lease
	since time.Time // when that was first seen
}

// try takes the lease if it is free, yields, belongs to a process that has ended,
// or has stayed at revision seen for LeaseTTL. It returns the lease's revision and
// its holder.
func (m *claim) try(ctx context.Context, kv jetstream.KeyValue) (uint64, record.Dispatcher, error) {
	e, err := kv.Get(ctx, m.run)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		rev, err := kv.Create(ctx, m.run, m.value)
		if err == nil {
			return rev, m.me, nil
		}
		if !lostRace(err) {
			return 0, record.Dispatcher{}, err
		}
		e, err = kv.Get(ctx, m.run)
		if err != nil {
			return 0, record.Dispatcher{}, err
		}
	} else if err != nil {
		return 0, record.Dispatcher{}, err
	}
	var by record.Dispatcher
	bad := by.Decode(e.Value())
	stale := e.Revision() == m.seen && time.Since(m.since) >= LeaseTTL
	if bad == nil && !stale && !hasEnded(by, m.me) && (!by.Yields || m.me.Yields) {
		return e.Revision(), by, nil
	}
	rev, err := kv.Update(ctx, m.run, m.value, e.Revision())
	if lostRace(err) { // another dispatcher was faster
		if e, err = kv.Get(ctx, m.run); err == nil {
			err = by.Decode(e.Value())
			return e.Revision(), by, err
		}
	}
	return rev, m.me, err
}

func (c *Client) holdLease(run string, me record.Dispatcher, value []byte, rev uint64) *DispatcherLease {
	ctx, stop := c.untilClose(context.Background())
	l := &DispatcherLease{
		c: c, run: run, me: me, rev: rev, renewed: time.Now(), lost: make(chan struct{}), stop: stop,
		done: make(chan struct{}),
	}
	if !c.spawn(func() {
		defer close(l.done)
		l.renew(ctx, value)
	}) {
		close(l.done)
		l.lose(conn.ErrClosed)
	}
	return l
}

func (l *DispatcherLease) renew(ctx context.Context, value []byte) {
	tick := time.NewTicker(LeaseTTL / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		kv, err := l.c.bucket(perRequest{ctx}, leaseBucket)
		if err == nil {
			err = l.update(perRequest{ctx}, kv, value)
		}
		switch {
		case ctx.Err() != nil:
			return
		case lostRace(err):
			l.lose(errors.New("another dispatcher has taken over the run"))
			return
		case err != nil && !l.Held():
			l.lose(fmt.Errorf("it could not be renewed: %w", err))
			return
		case err != nil:
			l.c.log.Debug().Err(err).Str("run", l.run).Msg("lease not renewed; retrying")
		}
	}
}

// update renews the lease. If the key is gone, because the server's store was lost or
// the TTL expired, it creates it again, unless another dispatcher did.
func (l *DispatcherLease) update(ctx context.Context, kv jetstream.KeyValue, value []byte) error {
	l.mu.Lock()
	rev := l.rev
	l.mu.Unlock()
	asked := time.Now()
	next, err := kv.Update(ctx, l.run, value, rev)
	if lostRace(err) {
		e, gerr := kv.Get(ctx, l.run)
		switch {
		case errors.Is(gerr, jetstream.ErrKeyNotFound):
			next, err = kv.Create(ctx, l.run, value)
		case gerr == nil && string(e.Value()) == string(value): // an answer of ours got lost
			next, err = e.Revision(), nil
		}
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rev, l.renewed = next, asked
	return nil
}

func (l *DispatcherLease) lose(why error) {
	l.once.Do(func() {
		l.c.log.Warn().Err(why).Str("run", l.run).Msg("this dispatcher has lost the run")
		close(l.lost)
	})
}

// Held reports whether this dispatcher certainly still has the lease. Call it before
// each step that only one dispatcher may take.
func (l *DispatcherLease) Held() bool {
	l.mu.Lock()
	renewed := l.renewed
	l.mu.Unlock()
	select {
	case <-l.lost:
		return false
	default:
		return time.Since(renewed) < LeaseTTL/2
	}
}

// Lost is closed when the lease is lost. It can be acquired again.
func (l *DispatcherLease) Lost() <-chan struct{} { return l.lost }

// Release ends the lease. It may be called more than once.
func (l *DispatcherLease) Release() {
	l.stop()
	<-l.done
	l.mu.Lock()
	rev := l.rev
	l.rev = 0
	l.mu.Unlock()
	select {
	case <-l.lost:
		return
	default:
	}
	if rev == 0 || !l.c.Connected() {
		return // the TTL ends it
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	kv, err := l.c.bucket(ctx, leaseBucket)
	if err == nil {
		err = kv.Delete(ctx, l.run, jetstream.LastRevision(rev))
	}
	if err != nil {
		l.c.log.Debug().Err(err).Str("run", l.run).Msg("lease not released; it expires by itself")
	}
}

// Dispatcher is the dispatcher that has the run's lease; ok is false if none has.
func (c *Client) Dispatcher(ctx context.Context, run string) (d record.Dispatcher, ok bool, err error) {
	if !score.ValidRunID(run) {
		return d, false, fmt.Errorf("%w: %q is not a run ID", ErrNoRun, record.Clean(run, 80))
	}
	err = read(ctx, func(ctx context.Context) error {
		e, err := c.lookUp(ctx, leaseBucket, run)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		ok = true
		return d.Decode(e.Value())
	})
	return d, ok && err == nil, c.fail("read the lease of run "+run, err)
}

// Machine identifies the boot and the PID namespace in which this process's PID is
// valid; empty if they are unknown.
func Machine() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + space
}

// hasEnded reports whether the dispatcher's process has certainly exited, which only a
// process on the same machine can tell. A PID that is used again counts as running.
func hasEnded(d, me record.Dispatcher) bool {
	if d.Machine == "" || d.Machine != me.Machine || d.Host != me.Host || d.PID <= 0 {
		return false
	}
	p, err := os.FindProcess(d.PID)
	if err != nil {
		return false
	}
	defer func() { _ = p.Release() }()
	return errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone)
}
