package jobs

import (
	"errors"
	"strings"
	"testing"
	"time"

	"surprisal/internal/jobs/record"
)

// TestProbe: a server that is well is measured, and nothing is left there.
func TestProbe(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	start := time.Now()
	h, err := r.c.Probe(r.ctx)
	r.ok(err)
	// The server's clock is this one; how far it seems ahead is known to half of a request's time.
	ahead := h.ClockAhead.Abs() - time.Since(start)/2
	if h.Publish <= 0 || h.RoundTrip <= 0 || h.Version == "" || h.StoreUsed < 0 || ahead > time.Second {
		t.Errorf("%+v", h)
	}
	for name := range r.c.js.StreamNames(r.ctx).Name() {
		if strings.HasPrefix(name, "SURPRISAL_PROBE_") {
			t.Errorf("stream %s was left", name)
		}
	}
}

// TestForgetRun: nothing of the run is left, and all of another one is.
func TestForgetRun(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	for _, run := range []string{"gone", "kept"} {
		r.ok(r.c.PutRun(r.ctx, record.Run{ID: run, State: record.RunFailed}))
		r.ok(r.c.OpenRun(r.ctx, run, 0, record.RunConfig{}, record.RunConfig{}))
		r.submit(makeJobs(run, 2), 1, 2, 0)
	}
	k, _ := r.worker(quick("w"))
	for range 2 {
		r.ok(r.next(k).Fail(r.ctx, errors.New("broken")))
	}
	count := func(run string) (records, letters int) {
		t.Helper()
		r.ok(r.c.JobStates(r.ctx, run, func(record.Job) { records++ }))
		d, err := r.c.Dead(r.ctx, run)
		r.ok(err)
		return records, len(d)
	}
	records, letters := count("kept")
	for range 2 { // a second time is no error
		r.ok(r.c.DeleteRun(r.ctx, "gone"))
	}
	if n, d := count("gone"); n != 0 || d != 0 {
		t.Errorf("%d records and %d letters are left", n, d)
	}
	if n, d := count("kept"); n != records || d != letters {
		t.Errorf("the other run has %d records and %d letters, had %d and %d", n, d, records, letters)
	}
	_, err := r.c.Run(r.ctx, "gone")
	r.is(err, ErrNoRun)
	runs, err := r.c.Runs(r.ctx)
	r.ok(err)
	if len(runs) != 1 || runs[0].ID != "kept" {
		t.Errorf("runs: %+v", runs)
	}
}
