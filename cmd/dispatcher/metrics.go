package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/rs/zerolog"

	"surprisal/internal/cli"
	"surprisal/internal/jobs"
	"surprisal/internal/metrics"
	"surprisal/internal/monitor"
)

// watch is a command's metrics; nil where --metrics-addr is not given.
type watch struct {
	meter    *metrics.Dispatcher
	stop     func() error
	observer atomic.Pointer[monitor.Observer]
}

// newWatch serves the metrics until Close.
func newWatch(flags *cli.Metrics, log zerolog.Logger) (*watch, error) {
	m := &watch{meter: metrics.NewDispatcher(version)}
	var err error
	m.stop, err = flags.Serve(m.meter.Set, func() []string {
		if o := m.observer.Load(); o != nil {
			return o.Unready()
		}
		return []string{"no run is in the queue yet"}
	}, log)
	if err != nil || flags.Addr == "" {
		return nil, err
	}
	return m, nil
}

// Close ends the server.
func (m *watch) Close() {
	if m != nil {
		_ = m.stop() // the command is over, whatever the error
	}
}

// observe keeps metrics of the queue current until end, and of a run through show.
func (m *watch) observe(
	ctx context.Context, client *jobs.Client, log zerolog.Logger,
) (show func(monitor.Progress), end func()) {
	if m == nil {
		return func(monitor.Progress) {}, func() {}
	}
	o := monitor.NewObserver(client, m.meter, log)
	m.observer.Store(o)
	return o.Show, start(ctx, o)
}

// observeRuns keeps metrics of the queue and of all runs current until end.
func (m *watch) observeRuns(
	ctx context.Context, client *jobs.Client, runs func() (monitor.Overview, bool), log zerolog.Logger,
) (end func()) {
	if m == nil {
		return func() {}
	}
	o := monitor.NewRunsObserver(client, m.meter, runs, log)
	m.observer.Store(&o.Observer)
	return start(ctx, o)
}

// start runs an observer until end.
func start(ctx context.Context, o interface{ Run(context.Context) error }) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	return func() { cancel(); <-done }
}

// workerMetrics are the flags that make each worker of a run serve its metrics on
// the next port after the dispatcher's.
func workerMetrics(m cli.Metrics) func(slot int) []string {
	return func(slot int) []string {
		beside := ""
		if m.Addr != "" {
			beside, _ = metrics.Beside(m.Addr, slot+1) // the address is valid: the dispatcher listens on it
		}
		// Given even if empty, so that workers do not take them from the environment.
		return []string{"--metrics-addr=" + beside, fmt.Sprintf("--pprof=%t", m.Pprof)}
	}
}
