package jobs

import (
	"context"
	"fmt"
	"surprisal/internal/jobs/conn"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// Client is a connection and what is done over it. Its methods may be called
// from any goroutine.
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

// New makes a client of a connection that is there already: package simnats has
// one that is simulated. Of cfg it takes Wait and Log.
func New(nc conn.NATS, js jetstream.JetStream, cfg conn.Config) *Client {
	return newClient(conn.Wrap(nc, cfg.Log), js, cfg)
}

func newClient(nc *conn.Conn, js jetstream.JetStream, cfg conn.Config) *Client {
	return &Client{
		nc: nc, js: js, log: cfg.Log, wait: cfg.Wait, closing: make(chan struct{}), kvs: make(map[string]jetstream.KeyValue),
	}
}

// Connect connects.
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
	return newClient(nc, js, cfg), nil
}

// Close closes the connection and waits for what it was doing. Leases in hand
// are given up.
func (c *Client) Close() {
	c.once.Do(func() {
		c.mu.Lock()
		close(c.closing)
		c.mu.Unlock()
		c.wg.Wait()
		c.nc.Close()
	})
}

// spawn runs f in a goroutine that Close waits for, unless Close was called.
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

// untilClose gives a context that ends with the client too.
func (c *Client) untilClose(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // ends with cancel, which whoever asked calls
		defer close(done)
		select {
		case <-c.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-done }
}

// Closed is closed when the connection is closed for good; Err says why.
func (c *Client) Closed() <-chan struct{} { return c.nc.Closed() }

// Err is nil while the connection lives and after Close; ErrAuth when a server
// came back with other credentials.
func (c *Client) Err() error { return c.nc.Err() }

// Connected reports whether a server answers now.
func (c *Client) Connected() bool { return c.nc.IsConnected() }

// Lost is closed once the connection that is there now breaks.
func (c *Client) Lost() <-chan struct{} { return c.nc.Lost() }

// URL of the server it is connected to, without secrets; empty when it is not.
func (c *Client) URL() string { return c.nc.ConnectedUrlRedacted() }
