package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"surprisal/internal/jobs"
	"surprisal/internal/metrics"
	"surprisal/internal/monitor"
)

// metricsFlags adds what a command that goes on for long is watched by.
func metricsFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("metrics-addr", "", "serve /metrics, /healthz and /readyz there: host:port, or :port for this machine alone (default not at all)")
	f.Bool("pprof", false, "serve /debug/pprof there too")
}

// exporter is a command's metrics; nil where nobody asked for them.
type exporter struct {
	meter    *metrics.Dispatcher
	server   *metrics.Server
	observer atomic.Pointer[monitor.Observer]
}

// newExporter serves what metricsFlags ask for, until Close.
func newExporter(cmd *cobra.Command, log zerolog.Logger) (*exporter, error) {
	addr, _ := cmd.Flags().GetString("metrics-addr") // metricsFlags made them
	pprof, _ := cmd.Flags().GetBool("pprof")
	if addr == "" {
		if pprof {
			return nil, flagError{errors.New("--pprof needs --metrics-addr")}
		}
		return nil, nil
	}
	m := &exporter{meter: metrics.NewDispatcher(version)}
	server, err := metrics.Serve(m.meter.Set, metrics.ServerConfig{Address: addr, Pprof: pprof, Ready: func() []string {
		if o := m.observer.Load(); o != nil {
			return o.Unready()
		}
		return []string{"no run is in the queue yet"}
	}})
	if err != nil {
		return nil, flagError{err}
	}
	m.server = server
	log.Info().Str("addr", server.Addr()).Msg("metrics are served")
	return m, nil
}

// Close ends the server.
func (m *exporter) Close() {
	if m != nil {
		_ = m.server.Close() // the command is over, whatever it says
	}
}

// observe looks at the queue until end. What is known of runs comes from runs, or,
// where that is nil, through show.
func (m *exporter) observe(ctx context.Context, client *jobs.Client, runs func() (monitor.Overview, bool), log zerolog.Logger) (show func(monitor.Progress), end func()) {
	if m == nil {
		return func(monitor.Progress) {}, func() {}
	}
	o := monitor.NewObserver(client, m.meter, runs, log)
	m.observer.Store(o)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	return o.Show, func() { cancel(); <-done }
}

// workerArgs have the workers of a run serve theirs on the ports that follow.
func workerArgs(cmd *cobra.Command) func(slot int) []string {
	addr, _ := cmd.Flags().GetString("metrics-addr")
	pprof, _ := cmd.Flags().GetBool("pprof")
	return func(slot int) []string {
		beside := ""
		if addr != "" {
			beside, _ = metrics.Beside(addr, slot+1) // it has been listened on
		}
		// Said in any case: else they would take it from the environment.
		return []string{"--metrics-addr=" + beside, fmt.Sprintf("--pprof=%t", pprof)}
	}
}
