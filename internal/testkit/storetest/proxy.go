package storetest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// Fault is what the proxy does to one request.
type Fault int

// The faults. Those of bodies spare what has none.
const (
	None     Fault = iota
	Busy           // 503
	Throttle       // 429 with Retry-After: 1
	Reset          // the connection is reset in mid-body
	Short          // the body ends early, in good order
	Slow           // the body comes in pieces with pauses
	Lost           // the request is served, its answer is lost
)

// Request is one that passed the proxy.
type Request struct {
	Method, Path string
	Range        string
	Status       int
	Bytes        int64 // of the body that was sent on
	Fault        Fault
}

// passing is a request, over once it is counted.
type passing struct {
	Request
	over bool
}

// Proxy forwards to a server, fails on purpose and counts.
type Proxy struct {
	URL string
	to  string

	mu       sync.Mutex
	fault    func(n int, r *http.Request) Fault
	requests []*passing // in the order they came
	n        int
}

// NewProxy starts a proxy before a server on loopback.
func NewProxy(t testing.TB, to string) *Proxy {
	p := &Proxy{to: via(to)}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.URL = s.URL
	return p
}

// Fail has f decide on each request; n counts them from 0.
func (p *Proxy) Fail(f func(n int, r *http.Request) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.n = f, 0
}

// Take gives the requests since the last Take, in the order they came. It waits for
// those under way: a client has its last byte before the proxy has counted it. One that
// its client keeps open is not waited for longer than ten seconds; a later Take gives it.
func (p *Proxy) Take() (taken []Request) {
	underWay := func(r *passing) bool { return !r.over }
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		p.mu.Lock()
		idle := !slices.ContainsFunc(p.requests, underWay)
		p.mu.Unlock()
		if idle {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var left []*passing
	for _, r := range p.requests {
		if r.over {
			taken = append(taken, r.Request)
		} else {
			left = append(left, r)
		}
	}
	p.requests = left
	return taken
}

// Bytes adds up the bodies of requests.
func Bytes(rs []Request) (n int64) {
	for _, r := range rs {
		n += r.Bytes
	}
	return n
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	f := None
	if p.fault != nil {
		f = p.fault(p.n, r)
	}
	p.n++
	entry := new(passing)
	p.requests = append(p.requests, entry)
	p.mu.Unlock()
	rec := Request{Method: r.Method, Path: r.URL.Path, Range: r.Header.Get("Range"), Fault: f}
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		entry.Request, entry.over = rec, true
	}()
	switch f {
	case Busy:
		rec.Status = http.StatusServiceUnavailable
		w.WriteHeader(rec.Status)
		return
	case Throttle:
		rec.Status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(rec.Status)
		return
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", p.to, ""
	out.Host = r.Host // it is signed
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		rec.Status = http.StatusBadGateway
		http.Error(w, fmt.Sprint(err), rec.Status)
		return
	}
	defer resp.Body.Close()
	rec.Status = resp.StatusCode
	if f == Lost {
		_, _ = io.Copy(io.Discard, resp.Body)
		cut(w, true)
		return
	}
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	if f == None || resp.ContentLength < 2 || r.Method == http.MethodHead {
		rec.Bytes, _ = io.Copy(w, resp.Body)
		return
	}
	half := resp.ContentLength / 2
	if f == Slow {
		for i := int64(0); i < 4 && err == nil; i++ {
			var n int64
			n, err = io.CopyN(w, resp.Body, resp.ContentLength/4)
			rec.Bytes += n
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
		}
		n, _ := io.Copy(w, resp.Body)
		rec.Bytes += n
		return
	}
	rec.Bytes, _ = io.CopyN(w, resp.Body, half)
	w.(http.Flusher).Flush()
	cut(w, f == Reset)
}

// cut ends the connection, with a reset or in good order.
func cut(w http.ResponseWriter, reset bool) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := c.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
