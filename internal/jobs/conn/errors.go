package conn

import "errors"

// Errors that callers decide on. They are wrapped: use errors.Is.
var (
	// ErrUnreachable: no NATS server answers at the URLs given.
	ErrUnreachable = errors.New("cannot reach NATS")
	// ErrConfig: the settings are invalid; waiting does not help.
	ErrConfig = errors.New("invalid NATS settings")
	// ErrTLS: the client rejects the server's certificate, or the server the client's.
	ErrTLS = errors.New("no TLS connection to NATS")
	// ErrDenied: the account lacks a permission. The connection is closed.
	ErrDenied = errors.New("the NATS account lacks a permission")
	// ErrAuth: the server rejects the credentials.
	ErrAuth = errors.New("NATS rejects the credentials")
	// ErrClosed: the connection was closed, by Close or permanently by the server.
	ErrClosed = errors.New("connection to NATS is closed")

	errNotSecret = errors.New("not a file with one line of at most 64 KiB")
)
