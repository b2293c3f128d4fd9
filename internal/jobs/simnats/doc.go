// Package simnats is a NATS server with JetStream, and the network to it, in memory, for
// simulations. It has the calls that package jobs makes, with the server's semantics,
// and faults that a seed decides. In a bubble of testing/synctest it runs in virtual
// time. docs/adr/004-simulated-queue.md has the reasons.
//
// A differential test applies the same operations to it and to a real server.
//
// A seed replays. Each message arrives at a time of its own, to the nanosecond, so that
// one goroutine wakes at a time. Its fate depends on the seed, its sender, its kind and
// how many of its kind were sent before, so that it does not matter in which order two
// goroutines run that wake in the same instant.
//
// Words:
//
//	process   a dispatcher or a worker with one connection, which can freeze or crash
//	step      a point between two operations at which a process freezes or crashes
//	fate      the pseudo-random numbers that decide what happens to one message
//
// A call that is not implemented panics: the interfaces are embedded as nil.
package simnats
