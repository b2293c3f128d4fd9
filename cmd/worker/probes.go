package main

import (
	"sync/atomic"

	"surprisal/internal/jobs"
	"surprisal/internal/metrics"
	"surprisal/internal/worker"
)

// probes say whether the worker is ready, from before it has a connection.
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

// unready gives reasons why the worker takes no jobs.
func (p *probes) unready() []string {
	if w := p.worker.Load(); w != nil {
		return w.Unready()
	}
	return []string{"no NATS server has answered yet"}
}
