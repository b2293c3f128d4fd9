package jobs

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// QueueInfo is the work stream and its consumers at one moment.
type QueueInfo struct {
	Messages    uint64    // in the stream: waiting, in workers' hands or delayed
	Bytes       uint64    //
	Pending     uint64    // not delivered yet
	AckPending  int       // in workers' hands, or delayed after a failed attempt
	Redelivered int       // of these, delivered more than once
	Waiting     int       // workers that wait for a job
	Oldest      time.Time // when the oldest message was queued; zero when none is
	// Runs that have a part of it, in the order that workers take them.
	Runs []RunQueueInfo
}

// Queue says how the queue stands. An empty queue is not a complete run: that is
// for the committed outputs to say.
func (c *Client) Queue(ctx context.Context) (QueueInfo, error) {
	var q QueueInfo
	runs, err := c.runQueues(ctx)
	if err == nil {
		err = read(ctx, func(ctx context.Context) error {
			s, err := c.js.Stream(ctx, jobStream)
			if err != nil {
				return err
			}
			st := s.CachedInfo().State
			q = QueueInfo{Messages: st.Msgs, Bytes: st.Bytes, Runs: runs}
			if st.Msgs > 0 {
				q.Oldest = st.FirstTime
			}
			return nil
		})
	}
	for _, r := range runs {
		q.Pending += r.Pending
		q.AckPending += r.AckPending
		q.Redelivered += r.Redelivered
		q.Waiting += r.Waiting
	}
	slices.SortFunc(q.Runs, func(a, b RunQueueInfo) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Run, b.Run))
	})
	return q, c.fail("look at the queue", err)
}

// strays lists the subjects in the stream that no run's consumer hands out.
func (c *Client) strays(ctx context.Context) ([]string, error) {
	s, err := c.js.Stream(ctx, jobStream)
	if err != nil {
		return nil, err
	}
	held := s.CachedInfo().State.Msgs
	runs, err := c.runQueues(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		held -= min(held, r.Pending+uint64(r.AckPending))
	}
	if held == 0 {
		return nil, nil
	}
	// The subjects first: a run's consumer is made before its first message.
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(allJobs))
	if err != nil {
		return nil, err
	}
	if runs, err = c.runQueues(ctx); err != nil {
		return nil, err
	}
	live := map[string]bool{}
	for _, r := range runs {
		live[r.Run] = true
	}
	var strays []string
	for subject := range info.State.Subjects {
		if run, _ := splitSubject(subject); !live[run] {
			strays = append(strays, subject)
		}
	}
	slices.Sort(strays)
	return strays, nil
}
