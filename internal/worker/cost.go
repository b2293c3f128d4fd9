package worker

import (
	"sync"
	"time"

	"surprisal/internal/gpu/telemetry"
	"surprisal/internal/jobs/record"
)

// Telemetry is what is known of the worker's GPU: a telemetry.Sampler.
type Telemetry interface {
	// Now is the newest sample; nil while there is none.
	Now() *telemetry.Sample
	// Energy is the joules taken since some time; ok is false where that is unknown.
	Energy() (joules float64, ok bool)
}

// cost adds up the GPU's time and energy while there is work in hand, and charges
// each committed job with what has come together since the last. So jobs are
// charged roughly, since several are in the pipeline, and all of them together
// exactly: with model loads, and with attempts that came to nothing.
type cost struct {
	energy func() (joules float64, ok bool) // nil: no GPU

	mu      sync.Mutex
	working bool
	seconds float64 // not charged yet, up to since
	joules  float64
	unknown bool // energy of a part of it is not known
	since   time.Time
	from    float64 // the energy then, if known
	known   bool
}

// work says whether there is work in hand from now on.
func (c *cost) work(working bool) {
	if c.energy == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.working != working {
		c.count()
		c.working = working
	}
}

// count adds what came together since the last count; mu is held.
func (c *cost) count() {
	now := time.Now()
	joules, known := c.energy()
	if c.working {
		c.seconds += now.Sub(c.since).Seconds()
		c.joules += max(0, joules-c.from)
		c.unknown = c.unknown || !known || !c.known
	}
	c.since, c.from, c.known = now, joules, known
}

// charge gives t what is to be charged.
func (c *cost) charge(t *record.Totals) {
	if c.energy == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count()
	seconds, joules := c.seconds, c.joules
	t.GPUSeconds = &seconds
	if !c.unknown {
		t.Joules = &joules
	}
	c.seconds, c.joules, c.unknown = 0, 0, false
}

// sampleGPU is the newest sample for the worker's record.
func (w *Worker) sampleGPU() *record.GPU {
	if w.cfg.Telemetry == nil {
		return nil
	}
	s := w.cfg.Telemetry.Now()
	if s == nil {
		return nil
	}
	value := func(name string) *float64 {
		if v, ok := s.Value(name); ok {
			return &v
		}
		return nil
	}
	bytes := func(name string) *uint64 {
		if v, ok := s.Value(name); ok {
			n := uint64(v)
			return &n
		}
		return nil
	}
	return &record.GPU{
		UUID: s.Device.UUID, Name: s.Device.Name, Index: s.Device.Index,
		Utilization: value(telemetry.Utilization), Power: value(telemetry.Power),
		PowerLimit: value(telemetry.PowerLimit),
		MemoryUsed: bytes(telemetry.MemoryUsed), MemoryTotal: bytes(telemetry.MemoryTotal),
		Temperature: value(telemetry.Temperature),
	}
}
