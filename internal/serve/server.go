package serve

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"surprisal/internal/jobs"
	"surprisal/internal/monitor"
)

//go:embed assets
var assets embed.FS

// Config configures a Server.
type Config struct {
	Program string   // version, shown
	NATS    string   // the servers' URLs without secrets, shown until one is reached
	Token   string   // that allows control; empty: nobody may
	Hosts   []string // host names for browsers, beside IP addresses, localhost and this machine's name
	// Address to listen on; on a loopback address only loopback names are answered.
	Address net.Addr
	// Dial connects for one action. The server closes the connection of an account that
	// may read but not act, so reading uses another connection.
	Dial func(context.Context) (*jobs.Client, error)
	Log  zerolog.Logger
}

// MinToken is the minimum length of a token.
const MinToken = 16

func (c Config) validate() error {
	if c.Token != "" && len(c.Token) < MinToken {
		return fmt.Errorf("the token has %d characters, but needs %d or more: "+
			"create one with head -c 24 /dev/urandom | base64", len(c.Token), MinToken)
	}
	return nil
}

// Server answers browsers. Register mounts it, Run keeps it current.
type Server struct {
	cfg    Config
	guard  *guard
	page   string // HTML with slots, see index
	files  map[string]file
	began  time.Time
	client atomic.Pointer[jobs.Client] // nil until NATS is reached
	watch  atomic.Pointer[monitor.Monitor]
	scans  chan struct{} // a slot for each list being read
	busy   sync.Map      // runs and workers with an action in progress

	mu      sync.Mutex
	now     state
	changed chan struct{} // closed when now is replaced
	looking int           // streams that are open
}

const (
	// scansAtOnce bounds the lists that are read for browsers at a time.
	scansAtOnce = 2
	// streamsAtMost bounds the browsers with a stream.
	streamsAtMost = 64
)

// New makes a server.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, files: map[string]file{}, began: time.Now(), scans: make(chan struct{}, scansAtOnce),
		changed: make(chan struct{}),
	}
	s.now.link = link{Why: "connecting to NATS", Since: time.Now()}
	names, err := assets.ReadDir("assets")
	if err != nil {
		return nil, err
	}
	for _, e := range names {
		if s.files[e.Name()], err = newFile(e.Name()); err != nil {
			return nil, err
		}
	}
	s.guard = newGuard(cfg, s.files["app.css"].data)
	source, err := assets.ReadFile("assets/index.html")
	if err != nil {
		return nil, err
	}
	s.page = string(source)
	return s, nil
}

// Register mounts the page and what it requests: /, /assets/ and /api/.
func (s *Server) Register(mux *http.ServeMux) {
	for pattern, h := range map[string]http.HandlerFunc{
		"GET /{$}":           s.index,
		"GET /assets/{name}": s.asset,
		"GET /favicon.ico":   s.asset,
		"GET /api/state":     s.state,
		"GET /api/events":    s.events,
		"GET /api/jobs":      s.jobs,
		"GET /api/job":       s.job,
		"GET /api/dead":      s.dead,
		"POST /api/unlock":   s.unlock,
		"POST /api/control":  s.control,
		"/":                  s.nothing,
	} {
		mux.Handle(pattern, s.guard.wrap(h))
	}
}

// Overview is the known state of runs, queue and workers; ok is false before there is a
// connection.
func (s *Server) Overview() (over monitor.Overview, ok bool) {
	m := s.watch.Load()
	if m == nil {
		return over, false
	}
	return m.Overview(), true
}

// Run connects, watches the queue and keeps the shown state current until ctx ends, and
// returns nil then. Actions in progress end with it.
func (s *Server) Run(ctx context.Context, connect func(context.Context) (*jobs.Client, error)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.keep(ctx) })
	g.Go(func() error {
		client, err := connect(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		defer client.Close()
		m := monitor.New(client, monitor.Config{Log: s.cfg.Log})
		s.client.Store(client)
		s.watch.Store(m)
		return m.Run(ctx)
	})
	return g.Wait()
}

// keepEvery is how often the shown state is composed.
const keepEvery = time.Second

// keep composes the shown state.
func (s *Server) keep(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	h := newHistory()
	for {
		next := s.compose(h, time.Now())
		s.mu.Lock()
		s.now = next
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// current is the shown state, and a channel that is closed when it is out of date.
func (s *Server) current() (state, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.changed
}

// HTTP is a server of h that ends slow and endless requests.
func HTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
}

// Loopback reports whether only this machine can reach a listener at a.
func Loopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

var errNotYet = errors.New("not connected to NATS yet")

// queue is the connection, if there is one yet.
func (s *Server) queue() (*jobs.Client, error) {
	if c := s.client.Load(); c != nil {
		return c, nil
	}
	return nil, errNotYet
}

// hostNames are the valid Host headers, beside addresses.
func (c Config) hostNames() []string {
	names := append([]string{"localhost"}, c.Hosts...)
	if !Loopback(c.Address) {
		if h, err := os.Hostname(); err == nil {
			names = append(names, h)
		}
	}
	for i := range names {
		names[i] = strings.ToLower(strings.TrimSuffix(names[i], "."))
	}
	slices.Sort(names)
	return names
}
