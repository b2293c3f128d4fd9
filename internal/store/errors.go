package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// The errors that callers decide on. fs.ErrNotExist and fs.ErrExist are wrapped
// too, for what they say.
var (
	// ErrChanged: the file is no longer the one that was planned.
	ErrChanged = errors.New("the file has changed since the run was planned")
	// ErrDenied: there are no credentials, or they don't suffice.
	ErrDenied = fs.ErrPermission
	// ErrUnsupported: the store can't do that.
	ErrUnsupported = errors.New("not supported there")
	// ErrUnreachable: the server did not answer, however often it was asked.
	ErrUnreachable = errors.New("no answer from the server")

	errRedirect   = errors.New("a redirect that is not followed")
	errNotRegular = errors.New("it is not a regular file")
)

// Error is what went wrong with a place, in one line that says what to do. It
// holds no query, user info or header.
type Error struct {
	Name string // the place
	Text string
	Kind error // one of this package's errors or fs's, or nil
}

func (e *Error) Error() string { return e.Name + ": " + e.Text }

// Unwrap gives the kind.
func (e *Error) Unwrap() error { return e.Kind }

// transient is an error that may pass.
type transient struct {
	err   error
	after time.Duration // that the server asks to wait
	dial  bool          // no server was reached: a wrong name, or one that starts again
}

func (e *transient) Error() string { return e.err.Error() }
func (e *transient) Unwrap() error { return e.err }

// networkError classifies what came instead of an HTTP response. Its text has no
// URL: one that a redirect led to may be signed.
func networkError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		// The name may be that of a host which a signed URL names; it is no secret.
		return &transient{err: fmt.Errorf("no address for host %s: check the name", dns.Name), dial: true}
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return &transient{err: fmt.Errorf("can't connect to %s: %w", op.Addr, op.Err), dial: true}
	}
	if errors.Is(err, errRedirect) || errors.Is(err, http.ErrSchemeMismatch) {
		return err
	}
	if isCertificate(err) {
		return fmt.Errorf("TLS: %w", err)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &transient{err: fmt.Errorf("connection: %w", err)}
}

// statusError classifies an HTTP status; code is the provider's own word for it.
func statusError(name string, status int, code string, h http.Header) error {
	text := http.StatusText(status)
	if code == "" {
		code = text
	}
	what := fmt.Sprintf("%s (HTTP %d)", code, status)
	switch {
	case status == http.StatusNotFound || status == http.StatusGone:
		return &Error{name, "there is no such file: check the name", fs.ErrNotExist}
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return &Error{name, "access denied: " + what, ErrDenied}
	case status == http.StatusPreconditionFailed:
		return &Error{name, ErrChanged.Error(), ErrChanged}
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500 && status != http.StatusNotImplemented:
		return &transient{err: errors.New(what), after: retryAfter(h, time.Now())}
	}
	return &Error{name, what, nil}
}

// retryAfter is how long the server asks to wait: seconds, or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseUint(v, 10, 16); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(t.Sub(now), 0)
	}
	return 0
}
