package worker

import (
	"sync"
	"time"

	"surprisal/internal/metrics"
)

// idle adds up how long the engine has nothing to do, by what is waited for. The
// stages before the engine say what they wait for, and forward says when it waits.
type idle struct {
	meter idleMeter

	mu      sync.Mutex
	cause   metrics.Cause
	waiting bool
	since   time.Time // when waiting, of the time that is not counted yet
}

// idleMeter counts it.
type idleMeter interface {
	Idle(cause metrics.Cause, d time.Duration)
}

// newIdle waits for a job, as a worker that has just started does.
func newIdle(m idleMeter) *idle {
	return &idle{meter: m, cause: metrics.CauseNoJob, waiting: true, since: time.Now()}
}

// because says what is waited for from now on.
func (c *idle) because(cause metrics.Cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != cause {
		c.count()
		c.cause = cause
	}
}

// wait says whether the engine waits from now on.
func (c *idle) wait(waiting bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count()
	c.waiting = waiting
}

// settle counts a wait that goes on.
func (c *idle) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count()
}

// count counts up to now; mu is held.
func (c *idle) count() {
	now := time.Now()
	if c.waiting {
		c.meter.Idle(c.cause, now.Sub(c.since))
	}
	c.since = now
}
