// Package metrics is what both programs tell Prometheus, and the server that tells
// it: /metrics, /healthz, /readyz, and /debug/pprof if asked.
//
//	Worker      what one worker process does; its pipeline counts on it
//	Dispatcher  how queue, workers and runs stand, as a dispatcher sees them
//	Set         the metrics of one program, on a registry of its own
//	Server      serves a Set
//
// Every metric is in docs/metrics.md, which a test holds to the code. No label has
// a job or a file in it, so the number of series is bounded by the program, by the
// GPUs of a machine and, on a dispatcher, by the runs that are on.
package metrics
