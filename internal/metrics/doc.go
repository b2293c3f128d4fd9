// Package metrics has the Prometheus metrics of both programs and the server for
// /metrics, /healthz, /readyz and, on request, /debug/pprof.
//
//	Worker      the work of one worker process, counted by its pipeline
//	Dispatcher  the state of queue, workers and runs, as a dispatcher sees them
//	Set         the metrics of one program, on its own registry
//	Server      serves a Set
//
// docs/metrics.md lists every metric; a test compares it with the code. No label contains
// a job or a file, so the number of series is bounded by the program, by the machine's
// GPUs and, on a dispatcher, by the active runs.
package metrics
