package worker

import (
	"testing"
	"testing/synctest"
	"time"

	"surprisal/internal/metrics"
)

// TestIdle: what is waited for is what was said when, and the causes add up to the
// time that the engine waited.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := map[metrics.Cause]time.Duration{}
		c := newIdle(count(got))
		time.Sleep(time.Second)
		c.because(metrics.CauseLoading)
		time.Sleep(2 * time.Second)
		c.because(metrics.CauseReading)
		c.because(metrics.CauseReading)
		time.Sleep(4 * time.Second)
		c.settle() // a scrape
		time.Sleep(8 * time.Second)
		c.wait(false)
		c.because(metrics.CauseTokenizing)
		time.Sleep(time.Hour) // at work
		c.wait(true)
		time.Sleep(16 * time.Second)
		c.because(metrics.CauseWriting)
		time.Sleep(32 * time.Second)
		c.wait(false)
		c.settle()
		for cause, want := range map[metrics.Cause]time.Duration{
			metrics.CauseNoJob: 1, metrics.CauseLoading: 2, metrics.CauseReading: 12, metrics.CauseTokenizing: 16,
			metrics.CauseWriting: 32,
		} {
			if got[cause] != want*time.Second {
				t.Errorf("%s: %s, want %ds", cause, got[cause], want)
			}
		}
	})
}

type count map[metrics.Cause]time.Duration

// Idle adds d.
func (c count) Idle(cause metrics.Cause, d time.Duration) { c[cause] += d }
