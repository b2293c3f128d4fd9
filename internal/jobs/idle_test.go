package jobs

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"surprisal/internal/jobs/record"
)

// TestIdleCost: what many workers that wait on many runs cost, all in this
// process: server, their connections and their waiting.
func TestIdleCost(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("measures; not short, not under the race detector")
	}
	const workers, runs = 300, 20
	r := newRig(t, record.RunConfig{})
	holder, _ := r.worker(quick("holder"))
	for i := range runs { // one job of each in somebody's hands, or there is nothing to wait for
		r.queueRun(fmt.Sprint("r", i), 0, 1)
		defer vanish(r.next(holder))
	}
	clients := []*Client{r.c}
	for i := range workers {
		k, c := r.worker(ConsumerConfig{Worker: fmt.Sprint("w", i)})
		clients = append(clients, c)
		go func() { _, _ = k.Next(r.ctx, r.ctx) }() // ends with the rig
	}
	// Of all connections: what they sent, what they got, and how often the server cut one off as too slow.
	traffic := func() (sent, got, cut float64) {
		for _, c := range clients {
			s := c.nc.Stats()
			sent, got, cut = sent+float64(s.OutMsgs), got+float64(s.InBytes), cut+float64(s.Reconnects)
		}
		return sent, got, cut
	}
	time.Sleep(3 * time.Second) // the first looks
	before := cpu(t)
	sent, got, cut := traffic()
	start := time.Now()
	time.Sleep(5 * time.Second)
	used, span := cpu(t)-before, time.Since(start) // a busy machine sleeps longer
	sent2, got2, cut2 := traffic()
	t.Logf("%d idle workers on %d runs: %.1f %% of a core, server and workers together; %.0f messages a second in, "+
		"%.0f KB/s out",
		workers, runs, 100*used.Seconds()/span.Seconds(), (sent2-sent)/span.Seconds(), (got2-got)/span.Seconds()/1024)
	if cut2 > cut {
		t.Errorf("%g slow consumers", cut2-cut)
	}
	if in := (sent2 - sent) / span.Seconds(); in > 4000 {
		t.Errorf("idle workers send %.0f messages a second", in)
	}
}

func cpu(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
