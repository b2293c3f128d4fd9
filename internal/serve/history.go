package serve

import (
	"math"
	"time"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
)

const (
	// sampleEvery is a sparkline's step.
	sampleEvery = 2 * time.Second
	// workerPoints and fleetPoints are a sparkline's length, a worker's and that of
	// a run or of all together.
	workerPoints = 90
	fleetPoints  = 300
	// silentAfter is how long a worker that reports every second may be silent.
	silentAfter = 8 * time.Second
	// missedFor is how long a worker must be missing from the list to count as gone.
	missedFor = 5 * time.Second
	// goneFor is how long a worker that vanished with jobs in hand is still shown.
	goneFor  = 10 * time.Minute
	goneMost = 200
)

// series is the last points of a value, the newest last; NaN where it is unknown.
type series struct {
	points []float32
	most   int
}

func (s *series) add(v float64) {
	if len(s.points) == s.most {
		copy(s.points, s.points[1:])
		s.points = s.points[:s.most-1]
	}
	s.points = append(s.points, float32(v))
}

// line is a series for a browser: each point a letter for its height in 63rds of Top.
type line struct {
	Top    float64 `json:"top"`
	Points string  `json:"points"`
}

const levels = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// line is nil of a series without a point. floor is the least that Top is.
func (s *series) line(floor float64) *line {
	top, some := floor, false
	for _, p := range s.points {
		if v := float64(p); !math.IsNaN(v) {
			top, some = max(top, v), true
		}
	}
	if !some {
		return nil
	}
	b := make([]byte, len(s.points))
	for i, p := range s.points {
		switch v := float64(p); {
		case math.IsNaN(v):
			b[i] = '.'
		case top > 0:
			b[i] = levels[int(math.Round(63*max(0, min(1, v/top))))]
		default:
			b[i] = levels[0]
		}
	}
	return &line{Top: top, Points: string(b)}
}

// history is what the records of one moment do not contain.
type history struct {
	workers map[string]*past
	runs    map[string]*series
	rate    series
	use     series
	power   series
	sampled time.Time
	looked  time.Time // of the overview that was taken in last
}

// past is the history of a worker.
type past struct {
	record           record.Worker
	rate, use, power series
	moved            time.Time // when its record last changed, by this machine's clock
	missed           time.Time // since when it is not listed
	gone             time.Time // when it was found to have vanished
}

func newHistory() *history {
	return &history{
		workers: map[string]*past{}, runs: map[string]*series{},
		rate: series{most: fleetPoints}, use: series{most: fleetPoints}, power: series{most: fleetPoints},
	}
}

// workersNow takes the records of one reading.
func (h *history) workersNow(list []record.Worker, now time.Time) {
	there := make(map[string]bool, len(list))
	for i := range list {
		w := &list[i]
		there[w.ID] = true
		p := h.workers[w.ID]
		if p == nil || !p.record.Started.Equal(w.Started) {
			p = &past{rate: series{most: workerPoints}, use: series{most: workerPoints},
				power: series{most: workerPoints}}
			h.workers[w.ID] = p
		}
		if !w.Updated.Equal(p.record.Updated) {
			p.moved = now
		}
		p.record, p.missed, p.gone = *w, time.Time{}, time.Time{}
	}
	gone := 0
	for id, p := range h.workers {
		if there[id] {
			continue
		}
		if p.missed.IsZero() {
			p.missed = now
		}
		if p.gone.IsZero() {
			if now.Sub(p.missed) < missedFor {
				continue
			}
			// A worker that exits cleanly deletes its record long before that expires.
			if len(p.record.Progress) == 0 || p.missed.Sub(p.moved) < jobs.WorkerTTL/2 {
				delete(h.workers, id)
				continue
			}
			p.gone = now
		}
		if gone++; now.Sub(p.gone) > goneFor || gone > goneMost {
			delete(h.workers, id)
		}
	}
}

// sample adds a point to each series.
func (h *history) sample(now time.Time) bool {
	if now.Sub(h.sampled) < sampleEvery-100*time.Millisecond {
		return false
	}
	h.sampled = now
	for _, p := range h.workers {
		switch {
		case !p.gone.IsZero():
			continue
		case now.Sub(p.moved) > silentAfter:
			p.rate.add(math.NaN())
			p.use.add(math.NaN())
			p.power.add(math.NaN())
			continue
		}
		p.rate.add(p.record.TokensPerSec)
		use, power := math.NaN(), math.NaN()
		if g := gpuOf(p.record); g != nil {
			use, power = orNaN(g.Use), orNaN(g.Power)
		}
		p.use.add(use)
		p.power.add(power)
	}
	return true
}

func orNaN(v *float64) float64 {
	if v == nil {
		return math.NaN()
	}
	return *v
}
