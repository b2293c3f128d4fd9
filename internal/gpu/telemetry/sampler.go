package telemetry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/rs/zerolog"
)

const (
	every   = time.Second
	reopen  = 30              // samples' time before a retry, after NVML or the GPU was lost
	closing = 2 * time.Second // that Close waits for an NVML call that hangs
	stale   = 10              // samples' time after which a sample is ignored, because NVML hangs
)

// Config selects what a Sampler samples.
type Config struct {
	UUID string // of the GPU, without GPU- or MIG-; if empty, only whether NVML works is sampled
	// Library is NVML's file; the default is the one that the loader finds.
	Library string
	Log     zerolog.Logger

	lib   nvml.Interface // replaced in tests
	every time.Duration
}

// Sample is the GPU's values at one time.
type Sample struct {
	Device Device
	At     time.Time
	points []point
	joules float64 // since some time in the past; negative if unknown
}

// Value returns a metric that has only the device's labels.
func (s *Sample) Value(name string) (v float64, ok bool) {
	for _, p := range s.points {
		if p.name == name && p.label == "" {
			return p.value, true
		}
	}
	return 0, false
}

// Sampler samples one GPU until Close.
type Sampler struct {
	cfg     Config
	current atomic.Pointer[Sample]
	up      atomic.Bool
	said    string // the last error that was logged
	stop    chan struct{}
	ended   chan struct{}
	first   chan struct{} // closed after the first sample or failure
	once    sync.Once
}

// Start starts sampling and does not wait.
func Start(cfg Config) *Sampler {
	if cfg.lib == nil {
		var opts []nvml.LibraryOption
		if cfg.Library != "" {
			opts = append(opts, nvml.WithLibraryPath(cfg.Library))
		}
		cfg.lib = nvml.New(opts...)
	}
	if cfg.every == 0 {
		cfg.every = every
	}
	s := &Sampler{cfg: cfg, stop: make(chan struct{}), ended: make(chan struct{}), first: make(chan struct{})}
	go s.run() // Close waits for it
	return s
}

// Await waits, for a limited time, for the first sample or its failure. A difference of
// energies needs the value at its start.
func (s *Sampler) Await(ctx context.Context) {
	select {
	case <-s.first:
	case <-ctx.Done():
	case <-time.After(closing):
	}
}

// Close stops sampling. An NVML call that hangs is abandoned.
func (s *Sampler) Close() {
	close(s.stop)
	select {
	case <-s.ended:
	case <-time.After(closing):
	}
}

// Now returns the newest sample, or nil if NVML is down or hangs.
func (s *Sampler) Now() *Sample {
	if c := s.current.Load(); c != nil && time.Since(c.At) < stale*s.cfg.every {
		return c
	}
	return nil
}

// Up reports whether NVML answers, for the configured GPU if there is one.
func (s *Sampler) Up() bool { return s.up.Load() && (s.cfg.UUID == "" || s.Now() != nil) }

// Energy returns the joules that the GPU has used since some time in the past; ok is
// false if that is unknown. Between samples it is extrapolated by the last power.
func (s *Sampler) Energy() (joules float64, ok bool) {
	c := s.Now()
	if c == nil || c.joules < 0 {
		return 0, false
	}
	watts, _ := c.Value(Power)
	return c.joules + watts*min(time.Since(c.At), 2*s.cfg.every).Seconds(), true
}

func (s *Sampler) run() {
	defer close(s.ended)
	for {
		err := s.sample()
		s.tried()
		s.up.Store(false)
		s.current.Store(nil)
		if err == nil || errors.Is(err, errNoLibrary) {
			if err != nil {
				s.cfg.Log.Debug().Err(err).Msg("no GPU metrics")
			}
			return
		}
		if s.said != err.Error() { // once, not each time
			s.said = err.Error()
			s.cfg.Log.Warn().Err(err).Msg("no GPU metrics: NVML is down; retrying")
		}
		select {
		case <-s.stop:
			return
		case <-time.After(reopen * s.cfg.every):
		}
	}
}

func (s *Sampler) tried() { s.once.Do(func() { close(s.first) }) }

// sample takes samples until stop, or until the GPU or NVML is lost.
func (s *Sampler) sample() error {
	if s.cfg.UUID == "" {
		if ret := s.cfg.lib.Init(); ret == nvml.ERROR_LIBRARY_NOT_FOUND {
			return errNoLibrary
		} else if ret != nvml.SUCCESS {
			return fmt.Errorf("start NVML: %s", text(ret))
		}
		s.up.Store(true)
		<-s.stop
		_ = s.cfg.lib.Shutdown()
		return nil
	}
	b, err := open(s.cfg.lib, s.cfg.UUID)
	if err != nil {
		return err
	}
	defer b.close()
	ticker := time.NewTicker(s.cfg.every)
	defer ticker.Stop()
	var slow []point
	for n := 0; ; n++ {
		now, err := b.sample(n%slowEvery == 0, &slow)
		if err != nil {
			return err
		}
		s.current.Store(now)
		s.up.Store(true)
		s.tried()
		select {
		case <-ticker.C:
		case <-s.stop:
			return nil
		}
	}
}

// sample reads the GPU. Slow values are read if all is set, and otherwise taken from slow.
func (b *board) sample(all bool, slow *[]point) (*Sample, error) {
	s := &Sample{Device: b.device, joules: -1}
	if all {
		*slow = nil
	}
	for i, g := range groups {
		if g.slow && !all || b.off[i] {
			continue
		}
		var got []point
		ret := g.read(b, func(name string, v float64, label ...string) {
			p := point{name: name, value: v}
			if len(label) > 0 {
				p.label = label[0]
			}
			got = append(got, p)
		})
		switch {
		case lost(ret):
			return nil, fmt.Errorf("read %s: %s", b.device.UUID, text(ret))
		case ret != nvml.SUCCESS:
			b.off[i] = untold(ret)
			continue
		}
		if g.slow {
			*slow = append(*slow, got...)
		} else {
			s.points = append(s.points, got...)
		}
	}
	s.points = append(s.points, *slow...)
	s.At = time.Now()
	b.energy(s)
	b.last = s.At
	return s, nil
}

// energy computes the sample's joules: the board's counter when last read, plus the power
// integrated since then. It never decreases.
func (b *board) energy(s *Sample) {
	watts, known := s.Value(Power)
	switch {
	case b.fresh:
		b.since, b.fresh = 0, false
	case known && !b.last.IsZero():
		b.since += (b.watts + watts) / 2 * s.At.Sub(b.last).Seconds()
	}
	b.watts = watts
	if !b.counted && !known {
		return
	}
	b.joules = max(b.joules, b.counter+b.since)
	s.points = append(s.points, point{name: energyTotal, value: b.joules})
	if !b.shared {
		s.joules = b.joules
	}
}
