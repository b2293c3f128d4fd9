package worker

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"surprisal/internal/jobs"
)

// TestCost: committed jobs are charged with all that came together while there was
// work in hand, and with nothing else; what is not known is absent.
func TestCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, known := time.Now(), true
		c := cost{energy: func() (float64, bool) { return 1000 + 100*time.Since(began).Seconds(), known }} // 100 W, always
		charge := func(seconds, joules float64) {
			t.Helper()
			var sum jobs.Totals
			c.charge(&sum)
			if sum.GPUSeconds == nil || math.Abs(*sum.GPUSeconds-seconds) > 1e-6 {
				t.Errorf("charged %v s, want %g", sum.GPUSeconds, seconds)
			}
			switch {
			case joules < 0 && sum.Joules != nil:
				t.Errorf("charged %g J that are not known", *sum.Joules)
			case joules >= 0 && (sum.Joules == nil || math.Abs(*sum.Joules-joules) > 1e-6):
				t.Errorf("charged %v J, want %g", sum.Joules, joules)
			}
		}
		time.Sleep(time.Hour) // idle
		c.work(true)
		time.Sleep(3 * time.Second)
		charge(3, 300)
		time.Sleep(2 * time.Second) // a job that failed
		c.work(true)
		time.Sleep(time.Second)
		charge(3, 300)
		c.work(false)
		time.Sleep(time.Hour)
		c.work(true)
		time.Sleep(time.Second)
		known = false // NVML goes down, and comes back
		charge(1, -1)
		time.Sleep(time.Second)
		known = true
		charge(1, -1)
		time.Sleep(time.Second)
		charge(1, 100)
	})
	var none cost // of a worker without a GPU
	var sum jobs.Totals
	none.work(true)
	none.charge(&sum)
	if sum.Joules != nil || sum.GPUSeconds != nil {
		t.Error("a CPU worker's jobs are charged")
	}
}

func TestEfficiency(t *testing.T) {
	var e efficiency
	at := time.Now()
	var perSecond, perJoule float64
	for i := range 60 {
		rate := int64(1000)
		if i > 30 {
			rate = 4000
		}
		tokens := int64(0)
		if len(e.looks) > 0 {
			tokens = e.looks[len(e.looks)-1].tokens + rate
		}
		perSecond, perJoule = e.add(look{at: at.Add(time.Duration(i) * time.Second), tokens: tokens, joules: float64(i) * 500, known: true})
	}
	if perSecond != 4000 || perJoule != 8 || len(e.looks) > 12 {
		t.Errorf("%g tokens/s, %g tokens/J, %d looks kept", perSecond, perJoule, len(e.looks))
	}
	if _, perJoule = e.add(look{at: at.Add(time.Hour)}); perJoule >= 0 {
		t.Errorf("%g tokens/J of energy that is not known", perJoule)
	}
}
