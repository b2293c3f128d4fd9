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

// Errors that callers distinguish. fs.ErrNotExist and fs.ErrExist are wrapped as well.
var (
	// ErrChanged means that the file is no longer the one that was planned.
	ErrChanged = errors.New("the file has changed since the run was planned")
	// ErrDenied means that there are no credentials, or that they are not sufficient.
	ErrDenied = fs.ErrPermission
	// ErrUnsupported means that the store cannot do this.
	ErrUnsupported = errors.New("not supported by this store")
	// ErrUnreachable means that the server did not answer after all retries.
	ErrUnreachable = errors.New("no answer from the server")

	errRedirect   = errors.New("redirect not followed")
	errNotRegular = errors.New("not a regular file")
)

// Error describes a problem with a place in one line that names the remedy. It contains
// no query, user info or header.
type Error struct {
	Name string // the place
	Text string
	Kind error // one of this package's errors or fs's, or nil
}

func (e *Error) Error() string { return e.Name + ": " + e.Text }

// Unwrap gives the kind.
func (e *Error) Unwrap() error { return e.Kind }

// transient is an error that may go away on a retry.
type transient struct {
	err   error
	after time.Duration // the delay that the server asks for
	dial  bool          // no server was reached: a wrong name, or a server that is restarting
}

func (e *transient) Error() string { return e.err.Error() }
func (e *transient) Unwrap() error { return e.err }

// networkError classifies an error of the connection. Its text contains no URL, because
// the target of a redirect may be signed.
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
		// The host may come from a signed URL; its name is not secret.
		return &transient{err: fmt.Errorf("no address for host %s: check the name", dns.Name), dial: true}
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return &transient{err: fmt.Errorf("cannot connect to %s: %w", op.Addr, op.Err), dial: true}
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

// statusError classifies an HTTP status; code is the provider's own error code.
func statusError(name string, status int, code string, h http.Header) error {
	text := http.StatusText(status)
	if code == "" {
		code = text
	}
	what := fmt.Sprintf("%s (HTTP %d)", code, status)
	switch {
	case status == http.StatusNotFound || status == http.StatusGone:
		return &Error{name, "file not found: check the name", fs.ErrNotExist}
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return &Error{name, "access denied: " + what, ErrDenied}
	case status == http.StatusPreconditionFailed:
		return &Error{name, ErrChanged.Error(), ErrChanged}
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500 &&
		status != http.StatusNotImplemented:
		return &transient{err: errors.New(what), after: retryAfter(h, time.Now())}
	}
	return &Error{name, what, nil}
}

// retryAfter is the delay that the server asks for, given in seconds or as a date.
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
