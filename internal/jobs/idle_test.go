package jobs

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// TestIdleCost: what many workers that wait on many runs cost, all in this
// process: server, their connections and their waiting.
func TestIdleCost(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("measures; not short, not under the race detector")
	}
	const workers, runs = 300, 20
	r := newRig(t, RunConfig{})
	holder, _ := r.worker(quick("holder"))
	for i := range runs { // one job of each in somebody's hands, or there is nothing to wait for
		r.queueRun(fmt.Sprint("r", i), 0, 1)
		defer vanish(r.next(holder))
	}
	for i := range workers {
		k, _ := r.worker(ConsumerConfig{Worker: fmt.Sprint("w", i)})
		go func() { _, _ = k.Next(r.ctx, r.ctx) }() // ends with the rig
	}
	time.Sleep(3 * time.Second) // the first looks
	before, msgs := cpu(t), r.srv.ns.NumSlowConsumers()
	v, err := r.srv.ns.Varz(nil)
	r.ok(err)
	start := time.Now()
	time.Sleep(5 * time.Second)
	used := cpu(t) - before
	w, err := r.srv.ns.Varz(nil)
	r.ok(err)
	span := time.Since(start) // a busy machine sleeps longer
	t.Logf("%d idle workers on %d runs: %.1f %% of a core, server and workers together; %.0f messages a second in, %.0f KB/s out",
		workers, runs, 100*used.Seconds()/span.Seconds(), float64(w.InMsgs-v.InMsgs)/span.Seconds(), float64(w.OutBytes-v.OutBytes)/span.Seconds()/1024)
	if n := r.srv.ns.NumSlowConsumers(); n != msgs {
		t.Errorf("%d slow consumers", n-msgs)
	}
	if in := float64(w.InMsgs-v.InMsgs) / span.Seconds(); in > 4000 {
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
