package conn

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// Config is how to connect to NATS.
type Config struct {
	URLs []string // "nats://host:4222"; user info in them is used but never shown
	Name string   // shown by the server's monitoring
	// Authentication: one of a token, a user with a password, an NKey, credentials.
	Token        string
	TokenFile    string // read in place of Token
	User         string
	Password     string
	PasswordFile string // read in place of Password
	NKeyFile     string // an NKey's seed
	CredsFile    string // a JWT and its NKey's seed
	CAFile       string // the CA of the server's certificate; default the system's CAs
	CertFile     string // client certificate, if the server requires one
	KeyFile      string // key of CertFile
	// Wait makes Dial retry until ctx ends (workers). Otherwise it returns
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

// takeUserInfo moves user info out of the URLs, so that no error or log line shows it.
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
			return c, errors.New("a NATS URL must have the form nats://host:port")
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
				return c, fmt.Errorf("NATS URL %s has different credentials from those given elsewhere", u.Host)
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
			return c, fmt.Errorf("both a %s and a file with a different one are given: %s", f.name, f.path)
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
		return errors.New("token, user, NKey and credentials file exclude each other: give only one")
	case c.User != "" && c.Password == "":
		return errors.New("user without a password: set SURPRISAL_NATS_PASSWORD or give --nats-password-file")
	case c.User == "" && c.Password != "":
		return errors.New("password without a user: set SURPRISAL_NATS_USER or give --nats-user")
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("a client certificate needs both its certificate file and its key file")
	case c.Timeout < 0:
		return fmt.Errorf("timeout %s is negative", c.Timeout)
	}
	// Before the first try: an unreachable server would hide a wrong path.
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

// identity names the settings that authenticate the client.
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
	return "the server's authentication: no token, user, NKey or credentials were given"
}
