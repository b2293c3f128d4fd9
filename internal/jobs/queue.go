package jobs

import (
	"context"
	"time"
)

// QueueInfo is the work stream and its consumer at one moment.
type QueueInfo struct {
	Messages    uint64    // in the stream: waiting, in workers' hands or delayed
	Bytes       uint64    //
	Pending     uint64    // not delivered yet
	AckPending  int       // in workers' hands, or delayed after a failed attempt
	Redelivered int       // of these, delivered more than once
	Waiting     int       // workers that wait for a job
	Oldest      time.Time // when the oldest message was queued; zero when none is
}

// Queue says how the queue stands. An empty queue is not a complete run: that is
// for the committed outputs to say.
func (c *Client) Queue(ctx context.Context) (QueueInfo, error) {
	var q QueueInfo
	err := read(ctx, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, JobStream)
		if err != nil {
			return err
		}
		k, err := s.Consumer(ctx, WorkDurable)
		if err != nil {
			return err
		}
		st, ki := s.CachedInfo().State, k.CachedInfo()
		q = QueueInfo{
			Messages: st.Msgs, Bytes: st.Bytes, Pending: ki.NumPending, AckPending: ki.NumAckPending,
			Redelivered: ki.NumRedelivered, Waiting: ki.NumWaiting,
		}
		if st.Msgs > 0 {
			q.Oldest = st.FirstTime
		}
		return nil
	})
	return q, c.fail("look at the queue", err)
}
