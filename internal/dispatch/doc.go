// Package dispatch is the person's side: it plans a run (Prepare), queues what
// OUT does not hold yet (Submit), watches it to its end (Wait) and adds up what
// was committed (Summarize). Local does all of it with a server and workers of
// its own.
//
// Truth. A run is complete when every job of its manifest has a committed score
// file or a dead letter, whatever the queue says; totals come from committed
// files alone. So the queue is disposable, and each step here may be cut off
// and done again.
package dispatch
