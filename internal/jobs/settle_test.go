package jobs

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/record"
)

// tappedMsg is a message some of whose ends don't reach the server, or come late.
type tappedMsg struct {
	jetstream.Msg
	mute      bool          // nothing that ends it goes out
	nakTakes  time.Duration //
	naked     atomic.Bool
	beatAfter atomic.Bool // a heartbeat was sent after the Nak
}

func (m *tappedMsg) InProgress() error {
	if m.naked.Load() {
		m.beatAfter.Store(true)
	}
	return m.Msg.InProgress()
}

func (m *tappedMsg) NakWithDelay(d time.Duration) error {
	m.naked.Store(true)
	time.Sleep(m.nakTakes)
	return m.Msg.NakWithDelay(d)
}

func (m *tappedMsg) TermWithReason(why string) error {
	if m.mute {
		return nil
	}
	return m.Msg.TermWithReason(why)
}

func (m *tappedMsg) DoubleAck(ctx context.Context) error {
	if m.mute {
		return nil
	}
	return m.Msg.DoubleAck(ctx)
}

// tap has k's messages as tapped makes them.
func tap(k *Consumer, tapped func(jetstream.Msg) jetstream.Msg) {
	k.fetch = func(ctx context.Context, run string, wait time.Duration) (jetstream.Msg, error) {
		m, err := k.pull(ctx, run, wait)
		if m != nil && err == nil {
			m = tapped(m)
		}
		return m, err
	}
}

// TestNoHeartbeatAfterNak: one would undo the delay.
func TestNoHeartbeatAfterNak(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.submit(makeJobs("run", 3), 1, 3, 0)
	cfg := quick("a")
	cfg.Heartbeat = 2 * time.Millisecond
	k, _ := r.worker(cfg)
	var last *tappedMsg
	tap(k, func(m jetstream.Msg) jetstream.Msg {
		last = &tappedMsg{Msg: m, nakTakes: 100 * time.Millisecond}
		return last
	})
	for name, back := range map[string]func(*Lease) error{
		"retry":   func(l *Lease) error { return l.Retry(r.ctx, errBoom) },
		"abandon": func(l *Lease) error { return l.Abandon(r.ctx) },
		"decline": func(l *Lease) error { return l.Decline(r.ctx, "not here") },
	} {
		l := r.next(k)
		time.Sleep(20 * time.Millisecond)
		r.ok(back(l))
		if !last.naked.Load() || last.beatAfter.Load() {
			t.Errorf("%s: given back %v, a heartbeat after it %v", name, last.naked.Load(), last.beatAfter.Load())
		}
	}
}

// TestReaperKeepsWhatIsOnRecord: the end of a job was recorded and its message
// stayed, until it hit MaxDeliver. The record has the last word.
func TestReaperKeepsWhatIsOnRecord(t *testing.T) {
	r := newRig(t, record.RunConfig{AckWait: 300 * time.Millisecond, MaxDeliver: 1})
	js := makeJobs("run", 2)
	r.submit(js, 1, 2, 0)
	k, _ := r.worker(quick("a"))
	tap(k, func(m jetstream.Msg) jetstream.Msg { return &tappedMsg{Msg: m, mute: true} })
	r.ok(r.next(k).Fail(r.ctx, errBoom))
	r.ok(r.next(k).Done(r.ctx, record.Totals{Documents: 3}))
	r.until("MaxDeliver", func() bool { q := r.queue(); return q.Messages == 2 && q.AckPending == 0 && q.Pending == 0 })
	r.ok(r.c.sweep(r.ctx))
	r.empty()
	if s := r.wantState(js[0], record.StateDead, 1, 0); s.Error != "boom" {
		t.Errorf("the dead job's record says %q", s.Error)
	}
	if s := r.wantState(js[1], record.StateDone, 0, 0); s.Totals == nil || s.Totals.Documents != 3 {
		t.Errorf("the done job's record: %+v", s)
	}
	if d := r.dead("run"); len(d) != 1 || d[0].ID != js[0].ID || d[0].Reason != "boom" {
		t.Errorf("dead letters %+v", d)
	}
}

// TestTwoBuryTogether: a worker that was taken for lost writes its letter over that
// of the holder and takes it back. The holder's stays.
func TestTwoBuryTogether(t *testing.T) {
	for _, when := range []int{1, 2} { // before the zombie finds out, and after
		t.Run(fmt.Sprint(when), func(t *testing.T) {
			r := newRig(t, record.RunConfig{AckWait: 400 * time.Millisecond})
			js := makeJobs("run", 1)
			r.submit(js, 1, 1, 0)
			a, ac := r.worker(quick("zombie"))
			b, bc := r.worker(quick("b"))
			zombie := r.next(a)
			zombie.halted.Do(func() { close(zombie.halt) }) // frozen: no heartbeats, not settled
			zombie.beats.Wait()
			var l *Lease
			holder := func() { l = r.next(b) }
			if when == 1 {
				// The zombie's first letter is out; then the job goes to the holder, whose
				// letter is out before the zombie looks at the record.
				ac.js = &afterPublish{ac.js, func() {
					holder()
					_, err := r.c.putLetter(r.ctx, record.DeadLetter{Run: "run", ID: js[0].ID, Job: &js[0],
						Reason: "holder's"})
					r.ok(err)
				}}
				r.is(zombie.Fail(r.ctx, errBoom), ErrSuperseded)
				if d := r.dead("run"); len(d) != 1 || d[0].Reason != "holder's" {
					t.Fatalf("dead letters %+v", d)
				}
				r.ok(l.Fail(r.ctx, errBoom))
			} else {
				holder()
				// Its letter is gone before the record says that the job is dead.
				var once sync.Once
				bc.js = &afterPublish{bc.js, func() {
					once.Do(func() {
						r.ok(r.c.dropLetter(r.ctx, "run", js[0].ID))
					})
				}}
				r.ok(l.Fail(r.ctx, errBoom))
			}
			r.wantState(js[0], record.StateDead, 1, 1)
			if d := r.dead("run"); len(d) != 1 || d[0].Reason != "boom" {
				t.Fatalf("dead letters %+v", d)
			}
			r.empty()
		})
	}
}
