package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/metrics"
)

// metricsFlags adds what a command that goes on for long is watched by.
func metricsFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("metrics-addr", "", "serve /metrics, /healthz and /readyz there: host:port, or :port for this machine alone (default not at all)")
	f.Bool("pprof", false, "serve /debug/pprof there too")
}

// monitor is a command's metrics; nil where nobody asked for them.
type monitor struct {
	meter    *metrics.Dispatcher
	server   *metrics.Server
	observer atomic.Pointer[dispatch.Observer]
}

// newMonitor serves what metricsFlags ask for, until Close.
func newMonitor(cmd *cobra.Command, log zerolog.Logger) (*monitor, error) {
	addr, _ := cmd.Flags().GetString("metrics-addr") // metricsFlags made them
	pprof, _ := cmd.Flags().GetBool("pprof")
	if addr == "" {
		if pprof {
			return nil, flagError{errors.New("--pprof needs --metrics-addr")}
		}
		return nil, nil
	}
	m := &monitor{meter: metrics.NewDispatcher(version)}
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
func (m *monitor) Close() {
	if m != nil {
		_ = m.server.Close() // the command is over, whatever it says
	}
}

// observe looks at the queue until end. What is known of runs comes from runs, or,
// where that is nil, through show.
func (m *monitor) observe(ctx context.Context, client *jobs.Client, runs func() (dispatch.Overview, bool), log zerolog.Logger) (show func(dispatch.Progress), end func()) {
	if m == nil {
		return func(dispatch.Progress) {}, func() {}
	}
	o := dispatch.NewObserver(client, m.meter, runs, log)
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
