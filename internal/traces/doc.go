// Package traces sends OpenTelemetry spans of runs and jobs to a collector, where the
// standard OTEL_* variables name one; by default none do, and nothing is made.
//
// A dispatcher's command that queues jobs is the span "run". Its context goes with
// each job in the message's header traceparent, so that whichever worker takes it
// adds the span "job", and under that "read" and "tokenize" (a chunk of rows each),
// "forward" (a batch's pass) and "write" (the score file). They are what metrics call
// phases, measured at the same places.
package traces
