package jobs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// Config is how to reach NATS.
type Config struct {
	URLs []string // "nats://host:4222"; user info in them is used and never shown
	Name string   // shown by the server's monitoring
	// Who we are: by one of a token, a user with a password, an NKey, credentials.
	Token        string
	TokenFile    string // read in place of Token
	User         string
	Password     string
	PasswordFile string // read in place of Password
	NKeyFile     string // an NKey's seed
	CredsFile    string // a JWT and its NKey's seed
	CAFile       string // signs the server's certificate; default the system's
	CertFile     string // ours, where the server wants one
	KeyFile      string // CertFile's
	// Wait makes Connect try until ctx ends (workers). Otherwise it reports
	// ErrUnreachable after one try of each server. Wrong credentials end both.
	Wait    bool
	Timeout time.Duration // of one try of one server; 3 s
	Log     zerolog.Logger
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "surprisal"
	}
	if c.Timeout == 0 {
		c.Timeout = 3 * time.Second
	}
	return c
}

// takeUserInfo moves user info out of the URLs, so that no error and no log line
// of any layer can show it.
func (c Config) takeUserInfo() (Config, error) {
	urls := make([]string, 0, len(c.URLs))
	for _, raw := range c.URLs {
		raw = strings.TrimSpace(raw)
		if raw == "" {
			continue
		}
		if !strings.Contains(raw, "://") {
			raw = "nats://" + raw
		}
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" {
			// The parser's error repeats the URL.
			return c, errors.New("a NATS URL is not of the form nats://host:port")
		}
		if !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return c, fmt.Errorf("NATS URL scheme %q is not one of nats, tls, ws, wss", u.Scheme)
		}
		if u.User != nil {
			user, token, pass := u.User.Username(), "", ""
			if p, ok := u.User.Password(); ok {
				pass = p
			} else {
				user, token = "", user
			}
			if (c.Token != "" && c.Token != token) || (c.User != "" && (c.User != user || c.Password != pass)) {
				return c, fmt.Errorf("NATS URL %s has other credentials than those given beside it", u.Host)
			}
			c.Token, c.User, c.Password, u.User = token, user, pass, nil
		}
		urls = append(urls, u.String())
	}
	c.URLs = urls
	return c, nil
}

// readSecrets reads the files that hold a token or a password.
func (c Config) readSecrets() (Config, error) {
	for _, f := range []struct {
		path, name string
		secret     *string
	}{{c.TokenFile, "token", &c.Token}, {c.PasswordFile, "password", &c.Password}} {
		if f.path == "" {
			continue
		}
		s, err := ReadSecret(f.path)
		if err != nil {
			return c, err
		}
		if *f.secret != "" && *f.secret != s {
			return c, fmt.Errorf("a %s is given and a file with another, %s", f.name, f.path)
		}
		*f.secret = s
	}
	return c, nil
}

func (c Config) validate() error {
	ways := 0
	for _, s := range []string{c.Token, c.User, c.NKeyFile, c.CredsFile} {
		if s != "" {
			ways++
		}
	}
	switch {
	case len(c.URLs) == 0:
		return errors.New("no NATS URL")
	case ways > 1:
		return errors.New("token, user, NKey and credentials file exclude each other: give one")
	case c.User != "" && c.Password == "":
		return errors.New("a user is named without a password: set SURPRISAL_NATS_PASSWORD or give --nats-password-file")
	case c.User == "" && c.Password != "":
		return errors.New("a password is given without a user: set SURPRISAL_NATS_USER or give --nats-user")
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("a client certificate needs both its certificate file and its key file")
	case c.Timeout < 0:
		return fmt.Errorf("timeout %s is negative", c.Timeout)
	}
	// Before the first try: a server that is away would hide a wrong path.
	for _, path := range []string{c.NKeyFile, c.CredsFile, c.CAFile, c.CertFile, c.KeyFile} {
		if path == "" {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_ = f.Close()
	}
	return nil
}

// Client is a connection and what is done over it. Its methods may be called
// from any goroutine.
type Client struct {
	cfg Config
	nc  Conn
	js  jetstream.JetStream
	log zerolog.Logger

	closed  chan struct{} // closed by nats.go's closed handler
	closing chan struct{} // closed by Close
	once    sync.Once
	wg      sync.WaitGroup // heartbeats

	mu   sync.Mutex
	err  error
	lost chan struct{} // closed while the connection is broken; made anew with it
	kvs  map[string]jetstream.KeyValue
}

// Conn is what a Client uses of a *nats.Conn beside JetStream.
type Conn interface {
	IsConnected() bool
	ConnectedUrlRedacted() string
	Stats() nats.Statistics
	FlushTimeout(time.Duration) error
	FlushWithContext(context.Context) error
	ForceReconnect() error
	Close()
}

// New makes a client of a connection that is there already: package simnats has
// one that is simulated. Of cfg it takes Wait and Log.
func New(nc Conn, js jetstream.JetStream, cfg Config) *Client {
	c := newClient(cfg.withDefaults())
	c.nc, c.js = nc, js
	return c
}

func newClient(cfg Config) *Client {
	return &Client{
		cfg: cfg, log: cfg.Log, closed: make(chan struct{}), closing: make(chan struct{}),
		lost: make(chan struct{}), kvs: make(map[string]jetstream.KeyValue),
	}
}

// Connect connects.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults().readSecrets()
	if err == nil {
		cfg, err = cfg.takeUserInfo()
	}
	if err == nil {
		err = cfg.validate()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	c := newClient(cfg)
	nc, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.nc = nc
	c.js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(requestTimeout),
		jetstream.WithPublishAsyncMaxPending(2*submitWindow), jetstream.WithPublishAsyncTimeout(submitTimeout))
	if err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	c.log.Debug().Str("url", c.nc.ConnectedUrlRedacted()).Msg("connected to NATS")
	return c, nil
}

// dial is nats.Connect with the first connection under ctx. nats.go's own
// RetryOnFailedConnect would hand back a connection that is none yet.
func (c *Client) dial(ctx context.Context) (*nats.Conn, error) {
	at := strings.Join(c.cfg.URLs, ", ")
	options, err := c.options(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	var lastSaid time.Time
	hungUp := 0 // times in a row that the server closed right after the TLS handshake
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("connect to NATS at %s: %w", at, err)
		}
		nc, err := nats.Connect(strings.Join(c.cfg.URLs, ","), options...)
		if err == nil {
			return nc, nil
		}
		switch {
		case isAuthError(err):
			return nil, fmt.Errorf("%w at %s: check %s", ErrAuth, at, c.cfg.identity())
		case errors.Is(err, nats.ErrTLS) && c.cfg.Wait && hungUp < 3:
			hungUp++ // it refuses our certificate, or is going down
			sleep(ctx, jitter(wait))
			continue
		case tlsRemedy(err) != "":
			return nil, fmt.Errorf("%w at %s: %w: %s", ErrTLS, at, err, tlsRemedy(err))
		case !isNetError(err):
			// A file that is missing, a key that can't be read: waiting won't help.
			return nil, fmt.Errorf("%w: connect to NATS at %s: %w", ErrConfig, at, err)
		case !c.cfg.Wait:
			return nil, fmt.Errorf("%w at %s: %w: is it running?", ErrUnreachable, at, err)
		}
		hungUp = 0
		if time.Since(lastSaid) > 30*time.Second {
			lastSaid = time.Now()
			c.log.Warn().Err(err).Str("url", at).Msg("cannot reach NATS; trying on")
		}
		sleep(ctx, jitter(wait))
	}
}

// identity says which settings hold who we are.
func (c Config) identity() string {
	switch {
	case c.Token != "":
		return "the token"
	case c.User != "":
		return "user " + c.User + " and the password"
	case c.NKeyFile != "":
		return "the NKey of " + c.NKeyFile
	case c.CredsFile != "":
		return "the credentials of " + c.CredsFile
	}
	return "what this server wants: no token, user, NKey or credentials are given"
}

// tlsRemedy is empty for an error that is none of TLS.
func tlsRemedy(err error) string {
	var cert *tls.CertificateVerificationError
	var op *net.OpError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &cert):
		return "check --nats-ca and the name in the URL"
	case errors.As(err, &op) && op.Op == "remote error", // what crypto/tls makes of an alert
		errors.Is(err, nats.ErrTLS): // closed right after the handshake
		return "check --nats-cert and --nats-key"
	case errors.As(err, &record), errors.Is(err, nats.ErrSecureConnWanted):
		return "does that server have TLS?"
	case errors.Is(err, nats.ErrSecureConnRequired):
		return "this server wants TLS: use a tls:// URL"
	}
	return ""
}

func (c *Client) options(ctx context.Context) ([]nats.Option, error) {
	o := []nats.Option{
		nats.Name(c.cfg.Name), nats.Timeout(c.cfg.Timeout),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(func(n int) time.Duration {
			return jitter(min(100*time.Millisecond<<min(n, 6), 5*time.Second))
		}),
		// A heartbeat or a Nak that waited out a broken connection would act on
		// somebody else's delivery: callers see the error and decide.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(20 * time.Second), nats.MaxPingsOutstanding(2),
		nats.NoCallbacksAfterClientClose(),
		nats.SetCustomDialer(&ctxDialer{first: ctx, timeout: c.cfg.Timeout}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			c.link(false)
			c.log.Warn().Err(err).Msg("connection to NATS lost; reconnecting")
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			c.link(true)
			c.log.Info().Str("url", nc.ConnectedUrlRedacted()).Msg("connected to NATS again")
		}),
		nats.ErrorHandler(func(nc *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				// No answer would ever come to what was asked, so every wait on this
				// connection ends here, with the reason.
				c.closedForGood(err)
				nc.Close()
				return
			}
			c.log.Warn().Err(err).Msg("NATS reports an error")
		}),
		nats.ClosedHandler(func(nc *nats.Conn) { c.closedForGood(nc.LastError()) }),
	}
	switch {
	case c.cfg.Token != "":
		o = append(o, nats.Token(c.cfg.Token))
	case c.cfg.User != "":
		o = append(o, nats.UserInfo(c.cfg.User, c.cfg.Password))
	case c.cfg.NKeyFile != "":
		nkey, err := nats.NkeyOptionFromSeed(c.cfg.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s is not the seed of a user's NKey: %w", c.cfg.NKeyFile, err)
		}
		o = append(o, nkey)
	case c.cfg.CredsFile != "":
		o = append(o, nats.UserCredentials(c.cfg.CredsFile))
	}
	if c.cfg.CAFile != "" {
		o = append(o, nats.RootCAs(c.cfg.CAFile))
	}
	if c.cfg.CertFile != "" {
		o = append(o, nats.ClientCert(c.cfg.CertFile, c.cfg.KeyFile))
	}
	return o, nil
}

// closedForGood is called once nothing can come over the connection any more: the
// server came back and refused the credentials twice, or it denies what was asked.
func (c *Client) closedForGood(err error) {
	c.mu.Lock()
	select {
	case <-c.closed:
		c.mu.Unlock()
		return
	default:
	}
	switch {
	case isAuthError(err):
		c.err = fmt.Errorf("%w after a reconnect: the server was started anew with others", ErrAuth)
	case errors.Is(err, nats.ErrPermissionViolation):
		c.err = fmt.Errorf("%w: %s: use an account that may", ErrDenied, denied(err))
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
		level = zerolog.DebugLevel // whoever asked tells it
	}
	c.log.WithLevel(level).Err(err).Msg("connection to NATS closed")
}

// Close closes the connection and waits for what it was doing. Leases in hand
// are given up.
func (c *Client) Close() {
	c.once.Do(func() {
		c.mu.Lock()
		close(c.closing)
		c.mu.Unlock()
		c.wg.Wait()
		if c.nc.IsConnected() {
			_ = c.nc.FlushTimeout(time.Second) // the last Naks; without them AckWait does it
		}
		c.nc.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		select {
		case <-c.closed:
		default:
			close(c.closed)
		}
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
func (c *Client) Closed() <-chan struct{} { return c.closed }

// Err is nil while the connection lives and after Close; ErrAuth when a server
// came back with other credentials.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Connected reports whether a server answers now.
func (c *Client) Connected() bool { return c.nc.IsConnected() }

// Lost is closed once the connection that is there now breaks.
func (c *Client) Lost() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

func (c *Client) link(up bool) {
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

// URL of the server it is connected to, without secrets; empty when it is not.
func (c *Client) URL() string { return c.nc.ConnectedUrlRedacted() }

// ctxDialer lets the first connection's dial end with its context.
type ctxDialer struct {
	first   context.Context
	timeout time.Duration
	once    sync.Once
}

func (d *ctxDialer) Dial(network, address string) (net.Conn, error) {
	ctx := context.Background()
	d.once.Do(func() { ctx = d.first })
	nd := net.Dialer{Timeout: d.timeout}
	return nd.DialContext(ctx, network, address)
}

// denied is what the server denies, without its preamble.
func denied(err error) string {
	s := clean(err.Error(), 256)
	if i := strings.LastIndex(s, "Violation for "); i >= 0 {
		s = s[i+len("Violation for "):]
	}
	return strings.TrimSpace(s)
}

func isAuthError(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) ||
		errors.Is(err, nats.ErrAuthRevoked) || errors.Is(err, nats.ErrAccountAuthExpired)
}

func isNetError(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) || errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrStaleConnection)
}

// sleep waits for d or ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// jitter spreads d over 0.75 d .. 1.25 d. No two processes wait from the same
// nanosecond on, and under a test's virtual clock the same waits come again.
func jitter(d time.Duration) time.Duration {
	x := uint64(time.Now().UnixNano()) * 0x9e3779b97f4a7c15
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	return d*3/4 + time.Duration((x^x>>32)%uint64(d/2+1))
}
