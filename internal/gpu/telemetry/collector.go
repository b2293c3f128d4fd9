package telemetry

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"surprisal/internal/metrics"
)

// Register adds the sampler's metrics to a set.
func (s *Sampler) Register(set *metrics.Set) { set.Register(newCollector(s), allDefinitions()) }

type collector struct {
	sampler *Sampler
	desc    map[string]*prometheus.Desc
	kind    map[string]prometheus.ValueType
}

func newCollector(s *Sampler) *collector {
	c := &collector{sampler: s, desc: map[string]*prometheus.Desc{}, kind: map[string]prometheus.ValueType{}}
	for _, d := range allDefinitions() {
		c.desc[d.Name] = prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
		c.kind[d.Name] = prometheus.GaugeValue
		if d.Kind == "counter" {
			c.kind[d.Name] = prometheus.CounterValue
		}
	}
	return c
}

// Describe sends all descriptions, also of metrics that this GPU lacks.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.desc {
		out <- d
	}
}

// Collect sends the newest sample without waiting for another one.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	emit := func(name string, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(c.desc[name], c.kind[name], v, labels...)
	}
	emit(up, truth(c.sampler.Up()))
	s := c.sampler.Now()
	if s == nil {
		return
	}
	d := s.Device
	index, of := strconv.Itoa(d.Index), ""
	if d.Board != d.UUID {
		of = d.Board
	}
	emit(info, 1, d.UUID, index, d.Name, d.PCI, of)
	for _, p := range s.points {
		labels := []string{d.Board, index}
		if own[p.name] || d.Board == "" {
			labels[0] = d.UUID
		}
		if p.label != "" {
			labels = append(labels, p.label)
		}
		emit(p.name, p.value, labels...)
	}
}

// own are the metrics of the MIG device itself; the others are the board's.
var own = func() map[string]bool {
	m := map[string]bool{}
	for _, d := range definitions {
		m[d.Name] = strings.HasPrefix(d.Name, "surprisal_gpu_memory_") && strings.HasSuffix(d.Name, "_bytes") ||
			strings.HasPrefix(d.Name, "surprisal_gpu_process") || d.Name == Utilization ||
			d.Name == "surprisal_gpu_memory_utilization_ratio"
	}
	return m
}()
