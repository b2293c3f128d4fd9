package serve

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// guard decides which requests are answered.
type guard struct {
	policy   string
	hosts    []string // sorted, lower case
	loopback bool
	token    [sha256.Size]byte
	open     bool // there is a token, so control is possible
	origin   *http.CrossOriginProtection
	wrong    sync.Mutex // held a moment for each wrong token
}

func newGuard(cfg Config, style []byte) *guard {
	return &guard{
		policy: policy(style), hosts: cfg.hostNames(), loopback: Loopback(cfg.Address),
		token: sha256.Sum256([]byte(cfg.Token)), open: cfg.Token != "",
		origin: http.NewCrossOriginProtection(),
	}
}

// policy lets the page load its own files and nothing else, and forbids framing. The
// style is in the page, which saves a request before it is drawn.
func policy(style []byte) string {
	sum := sha256.Sum256(style)
	return "default-src 'none'; script-src 'self'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
		"require-trusted-types-for 'script'; trusted-types 'none'"
}

// wrap refuses requests that another site's page may have sent.
func (g *guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", g.policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !g.known(r.Host):
			// A name that resolves to this address but isn't ours: DNS rebinding.
			refuse(w, http.StatusMisdirectedRequest, "this server does not answer to the name "+clip(r.Host,
				80)+"; --allow-host adds one")
		case g.origin.Check(r) != nil, foreign(r):
			refuse(w, http.StatusForbidden, "request from another site refused")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// foreign reports a browser's request on behalf of another site's page, except for
// following a link to this one.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return false
	}
	return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document" ||
		r.URL.Path != "/"
}

// known tells whether a Host header names this server. An address does: a site that
// rebinds its own name can't be asked for by it.
func (g *guard) known(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	if a, err := netip.ParseAddr(name); err == nil {
		return !g.loopback || a.IsLoopback() || slices.Contains(g.hosts, name)
	}
	_, ok := slices.BinarySearch(g.hosts, name)
	return ok
}

var (
	errReadOnly = errors.New("read-only: dispatcher serve was started without --token-file")
	errToken    = errors.New("wrong token: it must be that of dispatcher serve --token-file")
)

// may reports whether the request has the token. A wrong one is delayed, and only one
// is checked at a time.
func (g *guard) may(r *http.Request) error {
	if !g.open {
		return errReadOnly
	}
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(given))
	if ok && subtle.ConstantTimeCompare(sum[:], g.token[:]) == 1 {
		return nil
	}
	if ok && g.wrong.TryLock() {
		defer g.wrong.Unlock()
		select {
		case <-time.After(wrongWait):
		case <-r.Context().Done():
		}
	}
	return errToken
}

// wrongWait is the delay of a wrong token.
const wrongWait = 300 * time.Millisecond
