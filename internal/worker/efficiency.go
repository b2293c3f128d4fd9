package worker

import (
	"time"

	"surprisal/internal/gpu"
	"surprisal/internal/score"
)

// efficiencyOver is what rates of the last seconds are worked out over.
const efficiencyOver = 10 * time.Second

// efficiency works out how well the engine is used, from one look a second.
type efficiency struct{ looks []look }

type look struct {
	at     time.Time
	tokens int64
	joules float64
	known  bool // the joules
}

// add takes a look and gives tokens/s and tokens a joule over the last seconds; the
// latter is negative where energy is not known.
func (e *efficiency) add(l look) (perSecond, perJoule float64) {
	e.looks = append(e.looks, l)
	for len(e.looks) > 2 && l.at.Sub(e.looks[1].at) >= efficiencyOver {
		e.looks = e.looks[1:]
	}
	first := e.looks[0]
	perJoule = -1
	tokens := float64(l.tokens - first.tokens)
	if d := l.at.Sub(first.at).Seconds(); d > 0 {
		perSecond = tokens / d
	}
	if j := l.joules - first.joules; l.known && first.known && j > 0 {
		perJoule = tokens / j
	}
	return perSecond, perJoule
}

// measure brings the metrics of efficiency up to date.
func (w *Worker) measure(e *efficiency) {
	l := look{at: time.Now(), tokens: w.forwarded.Load()}
	if w.cost.energy != nil {
		l.joules, l.known = w.cost.energy()
	}
	perSecond, perJoule := e.add(l)
	peak, used := -1.0, -1.0
	if info := w.models.info.Load(); info != nil && info.Kind == score.EngineCUDA {
		if p, ok := gpu.PeakFlops(info.Device); ok {
			peak, used = p, perSecond*info.Flops/p
		}
	}
	w.meter.Efficiency(peak, used, perJoule)
}
