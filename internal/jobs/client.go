package jobs

import (
	"context"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"surprisal/internal/jobs/conn"
)

// Client is a connection to the queue. Its methods may be called from any goroutine.
type Client struct {
	nc   *conn.Conn
	js   jetstream.JetStream
	log  zerolog.Logger
	wait bool // for a dispatcher to set the queue up

	closing chan struct{} // closed by Close
	once    sync.Once
	wg      sync.WaitGroup // heartbeats

	mu  sync.Mutex
	kvs map[string]jetstream.KeyValue
}

// New makes a client of an existing connection, which may be a simulated one (package
// simnats). It uses Wait and Log of cfg.
func New(nc *conn.Conn, js jetstream.JetStream, cfg conn.Config) *Client {
	return &Client{
		nc: nc, js: js, log: cfg.Log, wait: cfg.Wait, closing: make(chan struct{}),
		kvs: make(map[string]jetstream.KeyValue),
	}
}

// Connect connects to NATS.
func Connect(ctx context.Context, cfg conn.Config) (*Client, error) {
	nc, raw, err := conn.Dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(raw, jetstream.WithDefaultTimeout(requestTimeout),
		jetstream.WithPublishAsyncMaxPending(2*submitWindow), jetstream.WithPublishAsyncTimeout(submitTimeout))
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	return New(nc, js, cfg), nil
}

// Close gives up the leases in hand, waits for running requests and closes the
// connection.
func (c *Client) Close() {
	c.once.Do(func() {
		c.mu.Lock()
		close(c.closing)
		c.mu.Unlock()
		c.wg.Wait()
		c.nc.Close()
	})
}

// spawn runs f in a goroutine that Close waits for, unless Close has been called.
func (c *Client) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closing:
		return false
	default:
	}
	c.wg.Go(f)
	return true
}

// untilClose gives a context that also ends with the client.
func (c *Client) untilClose(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // ends with cancel, which the caller must call
		defer close(done)
		select {
		case <-c.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-done }
}

// Closed is closed when the connection is closed permanently; Err tells why.
func (c *Client) Closed() <-chan struct{} { return c.nc.Closed() }

// Err is nil while the connection lives and after Close; ErrAuth when a server
// came back with other credentials.
func (c *Client) Err() error { return c.nc.Err() }

// Connected reports whether there is a connection to a server now.
func (c *Client) Connected() bool { return c.nc.IsConnected() }

// Lost is closed once the current connection breaks.
func (c *Client) Lost() <-chan struct{} { return c.nc.Lost() }

// URL is that of the connected server, without secrets; empty without a connection.
func (c *Client) URL() string { return c.nc.ConnectedUrlRedacted() }
