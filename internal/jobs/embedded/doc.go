// Package embedded is a NATS server in this process, on the loopback interface, for runs
// on one machine and for tests.
package embedded
