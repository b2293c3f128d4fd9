package simnats

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// requestTimeout is jetstream's default for a context without a deadline, as package jobs
// sets it.
const requestTimeout = 5 * time.Second

// Conn is one process's connection, as conn.NATS, and the process's fate: it can
// be frozen, and it can crash between any two calls.
type Conn struct {
	n    *Net
	name string

	up             bool
	gen            int       // connections so far: messages on an old one are lost
	lastIn         time.Time // when the last of the incoming messages on their way arrives
	lastOut, floor time.Time // the same for outgoing ones; floor without those sent at this instant
	sent           time.Time
	reconnects     uint64

	calls    int
	crashAt  int
	freezeAt int
	frozen   time.Duration // for how long, then
	dead     bool
	died     chan struct{}
	thaw     chan struct{} // not nil while frozen
	closed   bool
	futures  []*future
}

// Conn makes a connection of a process that the trace calls name.
func (n *Net) Conn(name string) *Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := &Conn{n: n, name: name, up: n.up, died: make(chan struct{})}
	n.conns = append(n.conns, c)
	return c
}

// JetStream is the process's interface to the server.
func (c *Conn) JetStream() jetstream.JetStream { return &js{c: c} }

// CrashAt makes the process crash before its nth step from now on; a call has two steps,
// before and after it.
func (c *Conn) CrashAt(n int) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.crashAt = c.calls + n
}

// Crash stops the process: none of its calls returns before the end.
func (c *Conn) Crash() {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.crash()
}

func (c *Conn) crash() {
	if c.dead || c.closed {
		return
	}
	c.n.note(c.name, "crash", "", "")
	c.dead = true
	c.drop()
	close(c.died)
}

// Died is closed when the process crashes.
func (c *Conn) Died() <-chan struct{} { return c.died }

// FreezeAt freezes the process for d before its nth step from now on.
func (c *Conn) FreezeAt(n int, d time.Duration) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.freezeAt, c.frozen = c.calls+n, d
}

// Freeze stops the process for d, after which it continues.
func (c *Conn) Freeze(d time.Duration) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.freeze(d)
}

func (c *Conn) freeze(d time.Duration) {
	if c.dead || c.thaw != nil {
		return
	}
	c.n.note(c.name, "freeze", d.String(), "")
	thaw := make(chan struct{})
	c.thaw = thaw
	time.AfterFunc(c.n.at(d), func() {
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		c.n.note(c.name, "thaw", "", "")
		c.thaw = nil
		close(thaw)
	})
}

// Cut breaks the connection for d.
func (c *Conn) Cut(d time.Duration) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.n.note(c.name, "cut", d.String(), "")
	c.drop()
	c.reconnectIn(d)
}

// drop loses the connection and the messages on their way.
func (c *Conn) drop() {
	if c.up {
		c.up = false
		c.gen++
	}
}

func (c *Conn) reconnectIn(d time.Duration) {
	if c.dead || c.closed {
		return
	}
	f := c.n.fate(c.name, "reconnect", "")
	time.AfterFunc(c.n.at(d+time.Duration(f.float()*float64(time.Second))), func() {
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		if c.up || c.dead || c.closed || !c.n.up {
			return
		}
		c.n.note(c.name, "reconnected", "", "")
		c.up = true
		c.reconnects++
		c.lastIn, c.lastOut, c.floor = time.Time{}, time.Time{}, time.Time{}
		for _, f := range c.futures { // as nats.go does
			f.fail(nats.ErrDisconnected)
		}
		c.futures = nil
	})
}

// step is a point between two operations at which a process waits while it is frozen,
// and stops when it crashes.
func (c *Conn) step() error {
	n := c.n
	n.mu.Lock()
	c.calls++
	if c.crashAt > 0 && c.calls >= c.crashAt {
		c.crashAt = 0
		c.crash()
	}
	if c.freezeAt > 0 && c.calls >= c.freezeAt {
		c.freezeAt = 0
		c.freeze(c.frozen)
	}
	for {
		switch {
		case n.over || c.closed:
			n.mu.Unlock()
			return nats.ErrConnectionClosed
		case c.dead:
			n.mu.Unlock()
			<-n.end
			n.mu.Lock()
		case c.thaw != nil:
			thaw := c.thaw
			n.mu.Unlock()
			select {
			case <-thaw:
			case <-n.end:
			}
			n.mu.Lock()
		default:
			n.mu.Unlock()
			return nil
		}
	}
}

// out gives when a message sent now arrives: messages arrive in the order sent. Two
// goroutines that run in the same instant send in no particular order, so their messages
// have none; only a flush waits for all that were sent.
func (c *Conn) out(op string, f *fate) time.Duration {
	now, way := time.Now(), f.way(c.n.faults)
	if !now.Equal(c.sent) {
		c.sent, c.floor = now, c.lastOut
	}
	after := c.floor
	if op == opFlush {
		after = c.lastOut
	}
	// Messages of one instant do not all arrive right after the one before: Go's scheduler
	// would decide which is first.
	way = c.n.at(max(way, after.Sub(now)+1+time.Duration(f.float()*float64(20*time.Microsecond))))
	if there := now.Add(way); there.After(c.lastOut) {
		c.lastOut = there
	}
	return way
}

const opFlush = "flush"

// in is out for incoming messages: the server sends one after another.
func (c *Conn) in(way time.Duration) time.Duration {
	way = c.n.at(max(way, time.Until(c.lastIn)+1))
	c.lastIn = time.Now().Add(way)
	return way
}

type answer[T any] struct {
	v   T
	err error
}

// request calls do at the server and waits for its result.
func request[T any](ctx context.Context, c *Conn, op, key string, do func(*server) (T, error)) (v T, err error) {
	if err := c.step(); err != nil {
		return v, err
	}
	cancel := func() {}
	if _, ok := ctx.Deadline(); !ok {
		ctx, cancel = context.WithTimeout(ctx, requestTimeout)
	}
	defer cancel()
	answers, err := ask(c, op, key, do)
	if err == nil {
		select {
		case a := <-answers:
			v, err = a.v, a.err
		case <-ctx.Done():
			err = ctx.Err()
		case <-c.n.end:
			err = nats.ErrConnectionClosed
		}
	}
	if err != nil {
		c.n.Note(c.name, op, key, "gets "+err.Error())
	}
	if serr := c.step(); serr != nil {
		return v, serr
	}
	return v, err
}

// ask sends a request. A lost answer never arrives.
func ask[T any](c *Conn, op, key string, do func(*server) (T, error)) (<-chan answer[T], error) {
	n := c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if !c.up {
		return nil, nats.ErrReconnectBufExceeded // there is no such buffer
	}
	f := n.fate(c.name, op, key)
	answers := make(chan answer[T], 1)
	gen, lost, mute := c.gen, f.hit(n.faults.Request), f.hit(n.faults.Reply)
	back := f.way(n.faults)
	time.AfterFunc(c.out(op, f), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if lost || !n.up || gen != c.gen {
			n.note(c.name, op, key, "lost")
			return
		}
		v, err := do(n.srv)
		comes := "ok"
		if err != nil {
			comes = err.Error()
		}
		if mute {
			n.note(c.name, op, key, comes+", the answer lost")
			return
		}
		n.note(c.name, op, key, comes)
		time.AfterFunc(n.at(back), func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			if gen == c.gen {
				answers <- answer[T]{v, err}
			}
		})
	})
	return answers, nil
}

// signal sends a message that has no answer.
func (c *Conn) signal(op, key string, do func(*server)) error {
	if err := c.step(); err != nil {
		return err
	}
	n := c.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if !c.up {
		return nats.ErrReconnectBufExceeded
	}
	f := n.fate(c.name, op, key)
	gen, lost := c.gen, f.hit(n.faults.Signal)
	time.AfterFunc(c.out(op, f), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if lost || !n.up || gen != c.gen {
			n.note(c.name, op, key, "lost")
			return
		}
		n.note(c.name, op, key, "ok")
		do(n.srv)
	})
	return nil
}

// Pause is a step of the process that takes about d and needs no server.
func (c *Conn) Pause(ctx context.Context, op string, d time.Duration) error {
	if err := c.step(); err != nil {
		return err
	}
	c.n.mu.Lock()
	f := c.n.fate(c.name, op, "")
	t := time.NewTimer(c.n.at(d/2 + time.Duration(f.float()*float64(d))))
	c.n.mu.Unlock()
	defer t.Stop()
	var err error
	select {
	case <-t.C:
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.n.end:
		err = errors.New("the simulation is over")
	}
	if serr := c.step(); serr != nil {
		return serr
	}
	return err
}

// IsConnected and the next methods are those of conn.NATS.
func (c *Conn) IsConnected() bool {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return c.up && !c.closed && !c.n.over
}

// ConnectedUrlRedacted names no server.
func (c *Conn) ConnectedUrlRedacted() string { return "sim://" + c.name }

// Stats counts reconnects.
func (c *Conn) Stats() nats.Statistics {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	return nats.Statistics{Reconnects: c.reconnects}
}

// FlushTimeout waits until the server has read what was sent.
func (c *Conn) FlushTimeout(d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return c.FlushWithContext(ctx)
}

// FlushWithContext waits until the server has read what was sent.
func (c *Conn) FlushWithContext(ctx context.Context) error {
	_, err := request(ctx, c, opFlush, "", func(*server) (struct{}, error) { return struct{}{}, nil })
	return err
}

// ForceReconnect drops the connection and makes another.
func (c *Conn) ForceReconnect() error {
	c.Cut(100 * time.Millisecond)
	return nil
}

// Close ends the connection.
func (c *Conn) Close() {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.drop()
	c.closed = true
}
