package jobs

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
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
	r := newRig(t, RunConfig{})
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
	r := newRig(t, RunConfig{AckWait: 300 * time.Millisecond, MaxDeliver: 1})
	js := makeJobs("run", 2)
	r.submit(js, 1, 2, 0)
	k, _ := r.worker(quick("a"))
	tap(k, func(m jetstream.Msg) jetstream.Msg { return &tappedMsg{Msg: m, mute: true} })
	r.ok(r.next(k).Fail(r.ctx, errBoom))
	r.ok(r.next(k).Done(r.ctx, Totals{Documents: 3}))
	r.until("MaxDeliver", func() bool { q := r.queue(); return q.Messages == 2 && q.AckPending == 0 && q.Pending == 0 })
	r.ok(r.c.sweep(r.ctx))
	r.empty()
	if s := r.wantState(js[0], StateDead, 1, 0); s.Error != "boom" {
		t.Errorf("the dead job's record says %q", s.Error)
	}
	if s := r.wantState(js[1], StateDone, 0, 0); s.Totals == nil || s.Totals.Documents != 3 {
		t.Errorf("the done job's record: %+v", s)
	}
	if d := r.dead("run"); len(d) != 1 || d[0].ID != js[0].ID || d[0].Reason != "boom" {
		t.Errorf("dead letters %+v", d)
	}
}
