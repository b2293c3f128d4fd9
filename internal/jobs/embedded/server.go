package embedded

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"
)

// ErrStoreInUse: another server runs on the store folder. It is wrapped: use errors.Is.
var ErrStoreInUse = errors.New("queue store is in use")

// serverStart bounds how long a server may take to read its store.
const serverStart = 60 * time.Second

// Config is how the server is set up.
type Config struct {
	StoreDir string         // JetStream's folder; created with mode 0700 if missing
	Port     int            // 0: any free port. With the same port and token workers reconnect after a restart
	Token    string         // empty: 32 random bytes, in hexadecimal
	Log      zerolog.Logger // the zero Logger is silent
}

func (c Config) withDefaults() (Config, error) {
	if c.Token == "" {
		var b [32]byte
		if _, err := rand.Read(b[:]); err != nil {
			return c, fmt.Errorf("create a token: %w", err)
		}
		c.Token = hex.EncodeToString(b[:])
	}
	return c, nil
}

func (c Config) validate() error {
	if c.StoreDir == "" {
		return errors.New("no store folder")
	}
	if c.Port < 0 || c.Port > 65535 {
		return fmt.Errorf("port %d is not between 0 and 65535", c.Port)
	}
	if len(c.Token) < 16 {
		return fmt.Errorf("token has %d characters; it must have at least 16", len(c.Token))
	}
	return nil
}

// Server is a NATS server. What it has acked survives a power failure: every write is
// synced.
type Server struct {
	ns     *server.Server
	port   int
	token  string
	unlock func()
	once   sync.Once
}

// Start starts a server and waits until it accepts connections, or ctx ends.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err == nil {
		err = cfg.validate()
	}
	if err != nil {
		return nil, fmt.Errorf("start NATS server: %w", err)
	}
	if err := os.MkdirAll(cfg.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("start NATS server: %w", err)
	}
	unlock, err := lockFile(filepath.Join(cfg.StoreDir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("start NATS server on %s: %w", cfg.StoreDir, err)
	}
	s := &Server{token: cfg.Token, unlock: unlock}
	if err := s.start(ctx, cfg); err != nil {
		s.Shutdown()
		return nil, fmt.Errorf("start NATS server on %s: %w", cfg.StoreDir, err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, cfg Config) error {
	port := cfg.Port
	if port == 0 {
		port = server.RANDOM_PORT
	}
	opts := &server.Options{
		ServerName: "surprisal", Host: "127.0.0.1", Port: port, Authorization: cfg.Token,
		JetStream: true, StoreDir: cfg.StoreDir,
		// NATS syncs every two minutes by default. There are few jobs, so that syncing each
		// write costs little.
		SyncAlways: true,
		MaxPayload: 1 << 20,
		NoSigs:     true, DisableJetStreamBanner: true,
	}
	ns, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	s.ns = ns
	log := &serverLog{log: cfg.Log}
	ns.SetLoggerV2(log, cfg.Log.GetLevel() <= zerolog.TraceLevel, false, false)
	// Start can block on a large store; it returns once the server is shut down.
	started := make(chan struct{})
	go func() {
		defer close(started)
		ns.Start()
	}()
	deadline := time.Now().Add(serverStart)
	for !ns.ReadyForConnections(20 * time.Millisecond) {
		fatal := log.fatal()
		if err := ctx.Err(); err != nil {
			fatal = err
		} else if fatal == nil && time.Now().After(deadline) {
			fatal = fmt.Errorf("not ready after %s", serverStart)
		}
		if fatal != nil {
			s.stop()
			<-started
			return fatal
		}
	}
	<-started
	if a, ok := ns.Addr().(*net.TCPAddr); ok {
		s.port = a.Port
	}
	if !ns.JetStreamEnabled() {
		return errors.New("NATS server has no JetStream: its store could not be opened")
	}
	return nil
}

// URL to connect to; it holds no secret.
func (s *Server) URL() string {
	return "nats://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port()))
}

// Port it listens on.
func (s *Server) Port() int { return s.port }

// Token that clients need. Pass it by environment or stdin, never as an argument.
func (s *Server) Token() string { return s.token }

// Shutdown stops the server and waits until its files are closed.
func (s *Server) Shutdown() {
	s.once.Do(func() {
		s.stop()
		s.unlock()
	})
}

func (s *Server) stop() {
	if s.ns != nil {
		s.ns.Shutdown()
		s.ns.WaitForShutdown()
	}
}

// serverLog forwards the server's log, with notices at debug level. A fatal error ends
// Start, never the process.
type serverLog struct {
	log zerolog.Logger
	mu  sync.Mutex
	err error
}

func (l *serverLog) Noticef(f string, v ...any) { l.log.Debug().Msgf("NATS server: "+f, v...) }
func (l *serverLog) Debugf(f string, v ...any)  { l.log.Trace().Msgf("NATS server: "+f, v...) }
func (l *serverLog) Tracef(string, ...any)      {}
func (l *serverLog) Warnf(f string, v ...any)   { l.log.Warn().Msgf("NATS server: "+f, v...) }
func (l *serverLog) Errorf(f string, v ...any)  { l.log.Warn().Msgf("NATS server: "+f, v...) }
func (l *serverLog) Fatalf(f string, v ...any) {
	l.log.Error().Msgf("NATS server: "+f, v...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = fmt.Errorf(f, v...)
	}
}

func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
