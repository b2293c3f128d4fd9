package metrics

import (
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Definition describes a metric, as docs/metrics.md does.
type Definition struct {
	Name   string
	Kind   string // counter, gauge or histogram
	Help   string
	Labels []string
}

// Set is the metrics of one program, on a registry of its own.
type Set struct {
	reg     *prometheus.Registry
	defs    []Definition
	refresh atomic.Pointer[func()] // before each scrape
}

// BeforeScrape sets a function that updates metrics which are only counted occasionally.
func (s *Set) BeforeScrape(refresh func()) { s.refresh.Store(&refresh) }

// newSet has the metrics that both programs share: build information, Go and process
// metrics.
func newSet(program, version string) *Set {
	s := &Set{reg: prometheus.NewRegistry()}
	s.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.gauge("surprisal_build_info", "1; the labels describe the program", "program", "version", "goversion").
		WithLabelValues(program, version, runtime.Version()).Set(1)
	return s
}

// Definitions lists the set's own metrics, sorted by name.
func (s *Set) Definitions() []Definition {
	defs := slices.Clone(s.defs)
	slices.SortFunc(defs, func(a, b Definition) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return defs
}

// Register adds another package's collector and its definitions.
func (s *Set) Register(c prometheus.Collector, defs []Definition) {
	s.reg.MustRegister(c)
	s.defs = append(s.defs, defs...)
}

func (s *Set) define(kind, name, help string, labels []string) {
	s.defs = append(s.defs, Definition{Name: name, Kind: kind, Help: help, Labels: labels})
}

func (s *Set) counter(name, help string, labels ...string) *prometheus.CounterVec {
	s.define("counter", name, help, labels)
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	s.reg.MustRegister(c)
	return c
}

// gauge is absent until it is set; a gauge without labels is set by WithLabelValues().
func (s *Set) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	s.define("gauge", name, help, labels)
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	s.reg.MustRegister(g)
	return g
}

// gaugeFunc is read at each scrape.
func (s *Set) gaugeFunc(name, help string, read func() float64) {
	s.define("gauge", name, help, nil)
	s.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

func (s *Set) histogram(opts prometheus.HistogramOpts, labels ...string) *prometheus.HistogramVec {
	s.define("histogram", opts.Name, opts.Help, labels)
	h := prometheus.NewHistogramVec(opts, labels)
	s.reg.MustRegister(h)
	return h
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
