package jobs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"surprisal/internal/jobs/record"
)

func outcomes(history []record.Attempt) (o []record.Outcome) {
	for _, a := range history {
		o = append(o, a.Outcome)
	}
	return o
}

// TestHistory: what became of each attempt is on record, from the first to the
// dead letter and past it.
func TestHistory(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 900 * time.Millisecond, MaxAttempts: 2})
	js := makeJobs("run", 1)
	_, err := r.c.Job(r.ctx, "run", js[0].ID)
	r.is(err, ErrNoJob)
	r.submit(js, 1, 1, 0)
	at, err := r.c.Queued(r.ctx, "run", js[0].ID)
	r.ok(err)
	if time.Since(at) > time.Minute {
		t.Fatalf("queued at %s", at)
	}
	a, _ := r.worker(quick("a"))
	vanish(r.next(a))
	cfg := quick("hung")
	cfg.StallAfter = 400 * time.Millisecond
	hung, _ := r.worker(cfg)
	l := r.next(hung)
	<-l.Context().Done()
	if s := r.state(js[0]); !strings.Contains(s.Stalled, "no progress") || s.State != record.StateRunning {
		t.Fatalf("a stalled job's record: %+v", s)
	}
	vanish(l)
	l = r.next(a)
	r.ok(l.Abandon(r.ctx)) // no attempt
	r.ok(r.next(a).Retry(r.ctx, errBoom))
	b, _ := r.worker(quick("b"))
	r.ok(r.next(b).Retry(r.ctx, errors.New("boom again")))
	d, err := r.c.Letter(r.ctx, "run", js[0].ID)
	r.ok(err)
	want := []record.Outcome{record.OutcomeLost, record.OutcomeStalled, record.OutcomeFailed, record.OutcomeDead}
	if !slices.Equal(outcomes(d.History), want) {
		t.Fatalf("the dead letter has %+v, want %v", d.History, want)
	}
	_, err = r.c.RetryDead(r.ctx, "run")
	r.ok(err)
	r.submit(js, 2, 1, 0)
	r.ok(r.next(b).Done(r.ctx, record.Totals{}))
	s, err := r.c.Job(r.ctx, "run", js[0].ID)
	r.ok(err)
	if !slices.Equal(outcomes(s.History), append(want, record.OutcomeDone)) || s.Stalled != "" {
		t.Fatalf("history %+v", s.History)
	}
	for i, a := range s.History {
		if a.Number != i+1 || a.Started.IsZero() || a.Ended.Before(a.Started) {
			t.Errorf("attempt %+v", a)
		}
	}
	if h := s.History; h[0].Worker != "a" || h[1].Worker != "hung" || h[2].Error != "boom" ||
		h[3].Error != "boom again" || h[4].Worker != "b" {
		t.Fatalf("history %+v", h)
	}
	_, err = r.c.Letter(r.ctx, "run", js[0].ID)
	r.is(err, ErrNoJob)
}

// TestHistoryIsBounded: errors that are long however they are written don't
// grow a record past its bucket's limit.
func TestHistoryIsBounded(t *testing.T) {
	r := newRig(t, record.RunConfig{MaxAttempts: 100})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	cfg := quick("a")
	cfg.RetryDelay, cfg.RetryMax = 10*time.Millisecond, 10*time.Millisecond
	k, _ := r.worker(cfg)
	for i := range 15 {
		long := strings.Repeat([]string{"<", "\"", "é", "\x01", "\u2028"}[i%5], 9000)
		r.ok(r.next(k).Retry(r.ctx, errors.New(long)))
		s := r.state(js[0])
		b, err := s.Encode()
		r.ok(err)
		last := s.History[len(s.History)-1]
		if len(b) > record.MaxJobBytes || len(s.History) > 10 || last.Number != i+1 || len(last.Error) > 512 {
			t.Fatalf("record of %d bytes, %d attempts, the last number %d with %d bytes", len(b), len(s.History),
				last.Number, len(last.Error))
		}
		if i > 3 && len(s.History) < 4 {
			t.Fatalf("only %d attempts are kept", len(s.History))
		}
	}
	r.ok(r.next(k).Fail(r.ctx, errBoom))
	if d := r.dead("run"); len(d) != 1 || len(d[0].History) == 0 || d[0].History[len(d[0].History)-1].Number != 16 {
		t.Fatalf("letters %+v", d)
	}
}

// TestZombieDoneKeepsHistory: Done of a lease long replaced does not undo what
// is on record of it.
func TestZombieDoneKeepsHistory(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 300 * time.Millisecond})
	js := makeJobs("run", 1)
	r.submit(js, 1, 1, 0)
	a, _ := r.worker(quick("zombie"))
	b, _ := r.worker(quick("b"))
	zombie := r.next(a)
	zombie.halted.Do(func() { close(zombie.halt) })
	zombie.beats.Wait()
	l := r.next(b)
	r.ok(zombie.Done(r.ctx, record.Totals{}))
	r.ok(l.Done(context.WithoutCancel(r.ctx), record.Totals{}))
	if s := r.state(js[0]); !slices.Equal(outcomes(s.History), []record.Outcome{record.OutcomeLost,
		record.OutcomeDone}) {
		t.Fatalf("history %+v", s.History)
	}
}
