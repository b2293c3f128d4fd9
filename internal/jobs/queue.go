package jobs

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// QueueInfo is the job stream and its consumers at one moment.
type QueueInfo struct {
	Messages    uint64    // in the stream: pending, in hand or delayed
	Bytes       uint64    // of the messages
	Pending     uint64    // not delivered yet
	AckPending  int       // in hand, or delayed after a failed attempt
	Redelivered int       // of AckPending, delivered more than once
	Waiting     int       // workers that wait for a job
	Oldest      time.Time // when the oldest message was queued; zero when none is
	// Runs that have a consumer, in the order in which workers serve them.
	Runs []RunQueueInfo
}

// Queue is the state of the queue. An empty queue does not mean that runs are complete:
// only committed outputs tell.
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

// strays lists the subjects in the stream that no run's consumer delivers.
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
	// Subjects first: a run's consumer is created before its first message.
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
