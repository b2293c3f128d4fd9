package conn

import "errors"

// Errors that callers decide on. They are wrapped: use errors.Is.
var (
	// ErrUnreachable: no NATS server answers at the URLs given.
	ErrUnreachable = errors.New("cannot reach NATS")
	// ErrConfig: how to reach NATS is said wrongly; waiting won't help.
	ErrConfig = errors.New("invalid NATS settings")
	// ErrTLS: the server's certificate is not accepted here, or ours not there.
	ErrTLS = errors.New("no TLS connection to NATS")
	// ErrDenied: the account lacks a permission. It ends the connection.
	ErrDenied = errors.New("the NATS account lacks a permission")
	// ErrAuth: the server answers and refuses the credentials.
	ErrAuth = errors.New("NATS rejects the credentials")
	// ErrClosed: the connection was closed, by Close or for good by the server.
	ErrClosed = errors.New("connection to NATS is closed")

	errNotSecret = errors.New("not a file with one line of at most 64 KiB")
)
