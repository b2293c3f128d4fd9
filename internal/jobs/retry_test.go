package jobs

import (
	"errors"
	"testing"

	"surprisal/internal/jobs/record"
)

// TestReviveThenSubmit: a dead job that is submitted again is not taken for dead,
// and its letter goes when it is done.
func TestReviveThenSubmit(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	list := makeJobs("revive", 1)
	r.open("revive", 0)
	r.submit(list, 1, 1, 0)
	k, _ := r.worker(quick("w"))
	r.ok(r.next(k).Fail(r.ctx, errors.New("broken")))
	n, err := r.c.RetryDead(r.ctx, "revive")
	r.ok(err)
	if n != 1 {
		t.Fatalf("%d jobs revived, want 1", n)
	}
	r.wantState(list[0], record.StateWaiting, 1, 0)
	r.submit(list, 2, 1, 0)
	l := r.next(k)
	if l.Attempt != 1 {
		t.Errorf("attempt %d of the new message, want 1", l.Attempt)
	}
	r.ok(l.Done(r.ctx, record.Totals{}))
	if letters := r.dead("revive"); len(letters) != 0 {
		t.Errorf("letters of a job that is done: %+v", letters)
	}
}

func TestRedeem(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 2)
	r.submit(js, 1, 2, 0)
	k, _ := r.worker(quick("a"))
	r.ok(r.next(k).Fail(r.ctx, errBoom))
	r.ok(r.c.MarkDone(r.ctx, "run", js[0].ID))
	if s := r.wantState(js[0], record.StateDone, 1, 0); s.Error != "" {
		t.Fatalf("error %q", s.Error)
	}
	if d := r.dead("run"); len(d) != 0 {
		t.Fatalf("dead letters %+v", d)
	}
	l := r.next(k)
	r.ok(r.c.MarkDone(r.ctx, "run", js[1].ID)) // not dead: left alone
	r.wantState(js[1], record.StateRunning, 0, 0)
	r.ok(l.Done(r.ctx, record.Totals{}))
}
