package metrics

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ErrAddress means that the address is not valid or not available.
var ErrAddress = errors.New("cannot serve metrics")

type ServerConfig struct {
	// Address is host:port. The default host is 127.0.0.1; port 0 chooses a free port.
	Address string
	// Pprof also serves /debug/pprof.
	Pprof bool
	// Healthy and Ready return the reasons why the process is not; none means that it is.
	Healthy, Ready func() []string
}

// Server serves a program's metrics and health.
type Server struct {
	listener net.Listener
	http     http.Server
	ended    chan error
}

// Serve starts a server, which runs until Close.
func Serve(set *Set, cfg ServerConfig) (*Server, error) {
	address, err := Address(cfg.Address)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w: --metrics-addr %s: %w", ErrAddress, cfg.Address, err)
	}
	mux := http.NewServeMux()
	scrape := promhttp.HandlerFor(set.reg, promhttp.HandlerOpts{MaxRequestsInFlight: 8})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if refresh := set.refresh.Load(); refresh != nil {
			(*refresh)()
		}
		scrape.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /healthz", answer(cfg.Healthy))
	mux.HandleFunc("GET /readyz", answer(cfg.Ready))
	if cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	s := &Server{listener: l, ended: make(chan error, 1), http: http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}}
	go func() { s.ended <- s.http.Serve(l) }() // Close waits for it
	return s, nil
}

// Address completes a --metrics-addr: without a host, it is loopback.
func Address(given string) (string, error) {
	host, port, err := net.SplitHostPort(given)
	if err != nil {
		return "", fmt.Errorf("%w: --metrics-addr %q is not host:port or :port", ErrAddress, given)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// Beside gives the address for the n-th program that this one starts: the n-th port
// after its own, or any free port if its own is 0.
func Beside(given string, n int) (string, error) {
	address, err := Address(given)
	if err != nil {
		return "", err
	}
	host, port, _ := net.SplitHostPort(address) // Address has made it
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", fmt.Errorf("%w: --metrics-addr %s: the port is not a number", ErrAddress, given)
	}
	if p == 0 {
		return address, nil
	}
	return net.JoinHostPort(host, strconv.FormatUint(p+uint64(n), 10)), nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close stops the server at once.
func (s *Server) Close() error {
	err := s.http.Close()
	if served := <-s.ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// answer responds with ok, or with 503 and one reason per line.
func answer(reasons func() []string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if reasons != nil {
			if why := reasons(); len(why) > 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = fmt.Fprintln(w, strings.Join(why, "\n")) // a client that is gone
				return
			}
		}
		_, _ = fmt.Fprintln(w, "ok")
	}
}
