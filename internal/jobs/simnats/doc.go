// Package simnats is a NATS server with JetStream, and the network to it, in
// memory, for simulations: the calls that package jobs makes, with the server's
// semantics, and with faults that a seed decides. Run inside a bubble of
// testing/synctest it takes virtual time.
//
// It is held to the real server by a differential test, which does the same
// things to both.
//
// A seed replays. Each message's way takes a time of its own, to the nanosecond,
// so that one goroutine wakes at a time; what befalls it is a function of the
// seed, of who sends it, of what it is and of how many such went before, so that
// two goroutines of one instant may come in either order.
//
// A call that nothing here implements panics: the interfaces are embedded as nil.
package simnats
