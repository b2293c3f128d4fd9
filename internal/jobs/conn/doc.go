// Package conn is the connection to NATS: its settings, the first dial, TLS and
// authentication with a remedy for what goes wrong, and how the connection stands from
// then on.
package conn
