//go:build failpoints

package e2e

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy is a TCP proxy on loopback whose network can be made to fail.
type proxy struct {
	t      *testing.T
	l      net.Listener
	target string
	// down: bytes of either direction wait, and new connections get no answer, as
	// behind a broken switch.
	down atomic.Bool
	// deaf: what the server sends is thrown away, as is an ack that gets lost.
	deaf atomic.Bool

	mu    sync.Mutex
	up    *sync.Cond // no longer down, or closed
	conns map[net.Conn]struct{}
	shut  bool
	wg    sync.WaitGroup
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, l: l, target: target, conns: map[net.Conn]struct{}{}}
	p.up = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.shut = true
		p.mu.Unlock()
		_ = l.Close()
		p.heal()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(c) })
	}
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	if !p.pass() {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, nil) })
	both.Go(func() { p.copy(client, server, &p.deaf) })
	both.Wait()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

func (p *proxy) copy(to, from net.Conn, lose *atomic.Bool) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if !p.pass() {
			return
		}
		if n > 0 && (lose == nil || !lose.Load()) {
			if _, werr := to.Write(b[:n]); werr != nil {
				err = errors.Join(err, werr)
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = from.Close()
			}
			_ = to.Close()
			return
		}
	}
}

// pass waits while the network is down; false: the proxy is closed.
func (p *proxy) pass() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.down.Load() && !p.shut {
		p.up.Wait()
	}
	return !p.shut
}

func (p *proxy) partition() { p.down.Store(true) }

func (p *proxy) heal() {
	p.deaf.Store(false)
	p.down.Store(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up.Broadcast()
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}
