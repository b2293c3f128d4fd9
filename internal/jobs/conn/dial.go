package conn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Dial is nats.Connect with the first connection under ctx. With nats.go's
// RetryOnFailedConnect the connection would not be established yet when it returns.
func Dial(ctx context.Context, cfg Config) (*Conn, *nats.Conn, error) {
	cfg, err := cfg.withDefaults().readSecrets()
	if err == nil {
		cfg, err = cfg.takeUserInfo()
	}
	if err == nil {
		err = cfg.validate()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	c := Wrap(nil, cfg.Log)
	nc, err := c.dial(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	c.NATS = nc
	c.log.Debug().Str("url", nc.ConnectedUrlRedacted()).Msg("connected to NATS")
	return c, nc, nil
}

func (c *Conn) dial(ctx context.Context, cfg Config) (*nats.Conn, error) {
	at := strings.Join(cfg.URLs, ", ")
	options, err := c.options(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	var lastSaid time.Time
	hungUp := 0 // times in a row that the server closed the connection right after the TLS handshake
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("connect to NATS at %s: %w", at, err)
		}
		nc, err := nats.Connect(strings.Join(cfg.URLs, ","), options...)
		if err == nil {
			return nc, nil
		}
		switch {
		case isAuthError(err):
			return nil, fmt.Errorf("%w at %s: check %s", ErrAuth, at, cfg.identity())
		case errors.Is(err, nats.ErrTLS) && cfg.Wait && hungUp < 3:
			hungUp++ // it rejects our certificate, or is shutting down
			Sleep(ctx, Jitter(wait))
			continue
		case tlsRemedy(err) != "":
			return nil, fmt.Errorf("%w at %s: %w: %s", ErrTLS, at, err, tlsRemedy(err))
		case !isNetError(err):
			// Such as a missing file or an unreadable key: waiting does not help.
			return nil, fmt.Errorf("%w: connect to NATS at %s: %w", ErrConfig, at, err)
		case !cfg.Wait:
			return nil, fmt.Errorf("%w at %s: %w: is it running?", ErrUnreachable, at, err)
		}
		hungUp = 0
		if time.Since(lastSaid) > 30*time.Second {
			lastSaid = time.Now()
			c.log.Warn().Err(err).Str("url", at).Msg("cannot reach NATS; retrying")
		}
		Sleep(ctx, Jitter(wait))
	}
}

func (c *Conn) options(ctx context.Context, cfg Config) ([]nats.Option, error) {
	o := []nats.Option{
		nats.Name(cfg.Name), nats.Timeout(cfg.Timeout),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(func(n int) time.Duration {
			return Jitter(min(100*time.Millisecond<<min(n, 6), 5*time.Second))
		}),
		// A heartbeat or a Nak that waited for a reconnect would act on another delivery:
		// callers get the error and decide.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(20 * time.Second), nats.MaxPingsOutstanding(2),
		nats.NoCallbacksAfterClientClose(),
		nats.SetCustomDialer(&ctxDialer{first: ctx, timeout: cfg.Timeout}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			c.link(false)
			c.log.Warn().Err(err).Msg("connection to NATS lost; reconnecting")
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			c.link(true)
			c.log.Info().Str("url", nc.ConnectedUrlRedacted()).Msg("reconnected to NATS")
		}),
		nats.ErrorHandler(func(nc *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				// The denied request will never be answered, so close the connection with the
				// reason.
				c.closedForGood(err)
				nc.Close()
				return
			}
			c.log.Warn().Err(err).Msg("NATS error")
		}),
		nats.ClosedHandler(func(nc *nats.Conn) { c.closedForGood(nc.LastError()) }),
	}
	switch {
	case cfg.Token != "":
		o = append(o, nats.Token(cfg.Token))
	case cfg.User != "":
		o = append(o, nats.UserInfo(cfg.User, cfg.Password))
	case cfg.NKeyFile != "":
		nkey, err := nats.NkeyOptionFromSeed(cfg.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s is not a user NKey seed: %w", cfg.NKeyFile, err)
		}
		o = append(o, nkey)
	case cfg.CredsFile != "":
		o = append(o, nats.UserCredentials(cfg.CredsFile))
	}
	if cfg.CAFile != "" {
		o = append(o, nats.RootCAs(cfg.CAFile))
	}
	if cfg.CertFile != "" {
		o = append(o, nats.ClientCert(cfg.CertFile, cfg.KeyFile))
	}
	return o, nil
}

// tlsRemedy is what to do about a TLS error; empty for other errors.
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
		return "does the server use TLS?"
	case errors.Is(err, nats.ErrSecureConnRequired):
		return "the server requires TLS: use a tls:// URL"
	}
	return ""
}

// ctxDialer ends the first dial with its context.
type ctxDialer struct {
	first   context.Context // of Dial: nats.go's dialer has no context parameter
	timeout time.Duration
	once    sync.Once
}

func (d *ctxDialer) Dial(network, address string) (net.Conn, error) {
	ctx := context.Background()
	d.once.Do(func() { ctx = d.first })
	nd := net.Dialer{Timeout: d.timeout}
	return nd.DialContext(ctx, network, address)
}

// denied is what the server denies, without the beginning of its message.
func denied(err error) string {
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(err.Error(), "\uFFFD"))
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
