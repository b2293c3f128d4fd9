package jobs

import (
	"errors"
	"slices"
	"testing"
)

// TestReviveThenSubmit: a dead job that is submitted again is not taken for dead,
// and its letter goes when it is done.
func TestReviveThenSubmit(t *testing.T) {
	r := newRig(t, Topology{})
	job := testJobs("revive", 1)[0]
	epoch := r.putRun("revive")
	submit := func(epoch uint64) {
		_, _, err := r.c.Submit(r.ctx, slices.Values(testJobs("revive", 1)), epoch)
		r.ok(err)
	}
	submit(epoch)
	k := r.consumer(quick("w"))
	l, err := k.Next(r.ctx, r.ctx)
	r.ok(err)
	r.ok(l.Fail(r.ctx, errors.New("broken")))
	n, err := r.c.Revive(r.ctx, "revive")
	r.ok(err)
	if n != 1 {
		t.Fatalf("%d jobs revived, want 1", n)
	}
	r.ok(r.c.JobStates(r.ctx, "revive", func(s JobState) {
		if s.State != StateWaiting || s.Job != job.ID {
			t.Errorf("revived: %+v", s)
		}
	}))
	epoch, err = r.c.NextEpoch(r.ctx, "revive")
	r.ok(err)
	submit(epoch)
	l, err = k.Next(r.ctx, r.ctx)
	r.ok(err)
	if l.Attempt != 1 {
		t.Errorf("attempt %d of the new message, want 1", l.Attempt)
	}
	r.ok(l.Done(r.ctx, Totals{}))
	letters, err := r.c.Dead(r.ctx, "revive")
	r.ok(err)
	if len(letters) != 0 {
		t.Errorf("letters of a job that is done: %+v", letters)
	}
}
