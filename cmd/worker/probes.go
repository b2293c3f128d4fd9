package main

import (
	"errors"
	"sync/atomic"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/metrics"
	"surprisal/internal/worker"
)

// probes answer whether the worker is ready, from before it has a connection on.
type probes struct {
	metrics *metrics.Worker
	client  atomic.Pointer[jobs.Client]
	worker  atomic.Pointer[worker.Worker]
}

func newProbes() *probes {
	p := &probes{metrics: metrics.NewWorker(version)}
	p.metrics.Connected(func() bool { c := p.client.Load(); return c != nil && c.Connected() })
	return p
}

// unready says why the worker takes no jobs.
func (p *probes) unready() []string {
	if w := p.worker.Load(); w != nil {
		return w.Unready()
	}
	return []string{"no NATS server has answered yet"}
}

// serve serves them where an address is named, until stop.
func (p *probes) serve(cfg metrics.ServerConfig, log zerolog.Logger) (stop func() error, err error) {
	if cfg.Address == "" {
		if cfg.Pprof {
			return nil, usageError{errors.New("--pprof needs --metrics-addr")}
		}
		return func() error { return nil }, nil
	}
	cfg.Ready = p.unready
	server, err := metrics.Serve(p.metrics.Set, cfg)
	if err != nil {
		return nil, err
	}
	log.Info().Str("addr", server.Addr()).Msg("metrics are served")
	return server.Close, nil
}
