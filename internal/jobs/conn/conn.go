package conn

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// NATS is what a Conn uses of a *nats.Conn. Package simnats has one that is simulated.
type NATS interface {
	IsConnected() bool
	ConnectedUrlRedacted() string
	Stats() nats.Statistics
	FlushTimeout(time.Duration) error
	FlushWithContext(context.Context) error
	ForceReconnect() error
	Close()
}

// Conn is a connection and its state.
type Conn struct {
	NATS
	log zerolog.Logger

	closed chan struct{} // closed once the connection is, for good

	mu   sync.Mutex
	err  error
	lost chan struct{} // closed while the connection is broken; made anew with it
}

// Wrap makes a Conn of an existing connection.
func Wrap(nc NATS, log zerolog.Logger) *Conn {
	return &Conn{NATS: nc, log: log, closed: make(chan struct{}), lost: make(chan struct{})}
}

// Closed is closed when the connection is closed permanently; Err tells why.
func (c *Conn) Closed() <-chan struct{} { return c.closed }

// Err is nil while the connection lives and after Close; ErrAuth when a server
// came back with other credentials.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Lost is closed once the current connection breaks.
func (c *Conn) Lost() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

func (c *Conn) link(up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.lost:
		if up {
			c.lost = make(chan struct{})
		}
	default:
		if !up {
			close(c.lost)
		}
	}
}

// closedForGood is called when the connection is closed permanently: the server rejected
// the credentials twice after a reconnect, or denied a request.
func (c *Conn) closedForGood(err error) {
	c.mu.Lock()
	select {
	case <-c.closed:
		c.mu.Unlock()
		return
	default:
	}
	switch {
	case isAuthError(err):
		c.err = fmt.Errorf("%w after a reconnect: the server was restarted with different ones", ErrAuth)
	case errors.Is(err, nats.ErrPermissionViolation):
		c.err = fmt.Errorf("%w: %s: use an account with this permission", ErrDenied, denied(err))
	case err != nil:
		c.err = fmt.Errorf("%w: %w", ErrClosed, err)
	default:
		c.err = ErrClosed
	}
	err = c.err
	close(c.closed)
	c.mu.Unlock()
	level := zerolog.ErrorLevel
	if errors.Is(err, ErrDenied) {
		level = zerolog.DebugLevel // whoever made the request reports it
	}
	c.log.WithLevel(level).Err(err).Msg("connection to NATS closed")
}

// Close sends what was written to the connection and closes it.
func (c *Conn) Close() {
	if c.IsConnected() {
		_ = c.FlushTimeout(time.Second) // the last Naks; without them AckWait does it
	}
	c.NATS.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
}
