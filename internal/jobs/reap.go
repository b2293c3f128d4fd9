package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// sweepEvery is how often Reap searches for messages whose MaxDeliver advisory was lost.
const sweepEvery = time.Minute

// advisory is the used part of a MaxDeliver advisory.
type advisory struct {
	Stream     string `json:"stream"`
	Seq        uint64 `json:"stream_seq"`
	Deliveries uint64 `json:"deliveries"`
}

// Reap turns jobs that reached MaxDeliver into dead letters until ctx ends, and returns
// ctx's cause then. Each dispatcher runs it; several share the work.
//
// MaxDeliver is the last resort: the server never delivers such a message again, but
// keeps it, and counts it neither as pending nor as ack pending. If it stayed, its job
// could not be submitted again.
func (c *Client) Reap(ctx context.Context) error {
	ctx = perRequest{ctx}
	wait := 100 * time.Millisecond
	var swept time.Time
	for {
		err := c.reapSome(ctx)
		if err == nil && time.Since(swept) >= sweepEvery {
			swept = time.Now()
			err = c.sweep(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case c.Err() != nil:
			return c.Err()
		case err == nil:
			wait = 100 * time.Millisecond
			continue
		}
		c.log.Debug().Err(err).Msg("reading MaxDeliver advisories interrupted; retrying")
		conn.Sleep(ctx, conn.Jitter(wait))
		wait = min(2*wait, 10*time.Second)
	}
}

// reapSome handles the advisories of one request.
func (c *Client) reapSome(ctx context.Context) error {
	if !c.Connected() {
		return conn.ErrUnreachable
	}
	k, err := c.js.Consumer(ctx, eventStream, reapDurable)
	if err != nil {
		return err
	}
	fetch, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	batch, err := k.Fetch(16, jetstream.FetchContext(fetch), jetstream.FetchHeartbeat(5*time.Second))
	if err != nil {
		return err
	}
	for msg := range batch.Messages() {
		var a advisory
		if err := json.Unmarshal(msg.Data(), &a); err != nil || a.Stream != jobStream {
			c.log.Warn().Err(err).Msg("malformed advisory")
		} else if err := c.bury(ctx, a.Seq, a.Deliveries); err != nil {
			c.log.Warn().Err(err).Uint64("seq", a.Seq).Msg("job that reached MaxDeliver not moved to the dead " +
				"letters; retrying")
			if err := msg.NakWithDelay(conn.Jitter(2 * time.Second)); err != nil {
				return err
			}
			continue
		}
		if err := msg.DoubleAck(ctx); err != nil {
			return err
		}
	}
	if err := batch.Error(); err != nil && !isEmpty(err) {
		return err
	}
	return nil
}

// bury writes the dead letter and the record for a message that reached MaxDeliver, then
// deletes the message.
func (c *Client) bury(ctx context.Context, seq, deliveries uint64) error {
	s, err := c.js.Stream(ctx, jobStream)
	if err != nil {
		return err
	}
	raw, err := s.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil // acked or buried meanwhile
	}
	if err != nil {
		return err
	}
	return c.buryMessage(ctx, s, raw, deliveries, fmt.Sprintf("delivered %d times and never finished (MaxDeliver)",
		deliveries))
}

func (c *Client) buryMessage(
	ctx context.Context, s jetstream.Stream, raw *jetstream.RawStreamMsg, deliveries uint64, reason string,
) error {
	run, id := splitSubject(raw.Subject)
	seq := raw.Sequence
	mine := record.Job{Run: run, Job: id, State: record.StateDead, Seq: seq, Delivery: deliveries,
		Queued: raw.Time.UTC(), Letter: true}
	d := record.DeadLetter{
		Run: run, ID: id, Deliveries: deliveries, Seq: seq, Reason: reason,
	}
	if job, err := score.DecodeJob(raw.Data); err == nil {
		d.Job = &job
	} else {
		d.Raw = raw.Data
	}
	over := false // the message is recorded as done or dead
	if mine.Recordable() {
		cur, err := c.jobState(ctx, run, id)
		switch {
		case err == nil && cur.SameMessage(mine):
			over = cur.State == record.StateDone || cur.State == record.StateDead
			mine.Failed, mine.Lost, mine.Worker, mine.Started = cur.Failed, cur.Lost, cur.Worker, cur.Started
			if mine.History = cur.History; cur.State == record.StateRunning {
				mine.Lost++
				mine.History = cur.HistoryWithLost()
			}
			mine.Attempt, d.Attempts, d.History = mine.Attempts(), mine.Attempts(), mine.History
			if cur.Error != "" {
				d.Reason += ": " + cur.Error
			}
		case err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) && !errors.Is(err, record.ErrBad):
			return err
		}
	}
	if !over {
		if _, err := c.putLetter(ctx, d); err != nil {
			return err
		}
		if mine.Recordable() {
			if err := c.recordDead(ctx, mine, d.Reason); err != nil {
				return err
			}
		}
		c.log.Error().Str("run", record.Clean(run, 64)).Str("job", record.Clean(id, 64)).
			Str("reason", d.Reason).Msg("job is dead")
	}
	if err := s.DeleteMsg(ctx, seq); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return err
	}
	return nil
}

func (c *Client) recordDead(ctx context.Context, mine record.Job, reason string) error {
	kv, err := c.bucket(ctx, JobBucket)
	if err != nil {
		return err
	}
	_, err = swapRecord(ctx, kv, mine.Key(), func(cur record.Job, exists bool) (record.Job, error) {
		if exists && cur.State == record.StateDone && cur.SameMessage(mine) {
			return cur, errKeep
		}
		next := mine
		next.Error = reason
		return next, nil
	})
	if errors.Is(err, errKeep) {
		return c.dropLetter(ctx, mine.Run, mine.Job)
	}
	return err
}

// sweep buries messages that reached MaxDeliver and whose advisory was lost, and those
// that belong to no run.
func (c *Client) sweep(ctx context.Context) error {
	runs, err := c.runQueues(ctx)
	if err != nil {
		return err
	}
	for _, q := range runs {
		if err := c.sweepRun(ctx, q); err != nil {
			return err
		}
	}
	subjects, err := c.strays(ctx)
	if err != nil {
		return err
	}
	for _, subject := range subjects {
		if err := c.buryStray(ctx, subject); err != nil {
			return err
		}
	}
	return nil
}

// sweepRun buries the run's messages that reached MaxDeliver: when none is pending or in
// hand, these are all that remain up to the last delivery.
func (c *Client) sweepRun(ctx context.Context, q RunQueueInfo) error {
	if q.Pending > 0 || q.AckPending > 0 {
		return nil
	}
	s, err := c.js.Stream(ctx, jobStream)
	if err != nil {
		return err
	}
	for seq := uint64(1); seq <= q.delivered; seq++ {
		raw, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(jobSubject(q.Run, "*")))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if seq = raw.Sequence; seq > q.delivered {
			return nil
		}
		if err := c.bury(ctx, seq, uint64(q.Config.MaxDeliver)); err != nil {
			return err
		}
	}
	return nil
}

// buryStray removes a message that no worker will ever get: its run has ended, or never
// existed.
func (c *Client) buryStray(ctx context.Context, subject string) error {
	run, _ := splitSubject(subject)
	r, err := c.Run(ctx, run)
	switch {
	case err == nil && !r.State.Final():
		return nil // a dispatcher is about to open the run, or will when it is resumed
	case err != nil && !errors.Is(err, ErrNoRun) && !errors.Is(err, record.ErrBad):
		return err
	}
	s, err := c.js.Stream(ctx, jobStream)
	if err != nil {
		return err
	}
	raw, err := s.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if r.State == record.RunComplete || r.State == record.RunCancelled {
		// A slow publish of one dispatcher arrived after another had closed the run.
		c.log.Info().Str("run", run).Str("subject", record.Clean(subject, 128)).
			Msg("deleted a job of a run that has ended")
		if err := s.DeleteMsg(ctx, raw.Sequence); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return err
		}
		return nil
	}
	return c.buryMessage(ctx, s, raw, 0, "it belongs to no active run")
}
