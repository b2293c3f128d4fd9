// Package traces sends OpenTelemetry spans of runs and jobs to the collector that the
// standard OTEL_* variables name. Without one, it creates no spans.
//
// A dispatcher's command that queues jobs is the span "run". The header traceparent of
// each job's message carries its context, so any worker adds the span "job" to it, and
// below that "read" and "tokenize" (a chunk of rows each), "forward" (a batch's pass) and
// "write" (the score file). These are the phases of package metrics, measured at the same
// places.
package traces
