package jobs

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// putLetter stores a dead letter and returns its sequence in the stream, which keeps the
// newest letter of each job.
func (c *Client) putLetter(ctx context.Context, d record.DeadLetter) (seq uint64, err error) {
	b, err := d.Encode()
	if err != nil {
		return 0, permanent(err)
	}
	ack, err := c.js.Publish(ctx, deadSubject(d.Run, d.ID), b)
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// withdrawLetter deletes the job's letter if its sequence is still seq.
func (c *Client) withdrawLetter(ctx context.Context, run, job string, seq uint64) error {
	m := nats.NewMsg(deadSubject(run, job))
	m.Header.Set(headerOperation, "DEL")
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(seq, 10))
	if _, err := c.js.PublishMsg(ctx, m); err != nil && !lostRace(err) {
		return err
	}
	return nil
}

// dropLetter deletes the letter of a job that is done after all. It writes a marker over
// it: a worker's account may write letters, but purge nothing.
func (c *Client) dropLetter(ctx context.Context, run, job string) error {
	m := nats.NewMsg(deadSubject(run, job))
	m.Header.Set(headerOperation, "DEL")
	_, err := c.js.PublishMsg(ctx, m)
	return err
}

// DeadState is an opaque value that changes whenever a dead letter is written or deleted.
func (c *Client) DeadState(ctx context.Context) (string, error) {
	var state string
	err := read(ctx, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, deadStream)
		if err == nil {
			i := s.CachedInfo()
			state = fmt.Sprint(i.Created.UnixNano(), i.State.FirstSeq, i.State.LastSeq, i.State.Msgs)
		}
		return err
	})
	return state, c.fail("look at the dead letters", err)
}

// Dead lists a run's dead letters, or those of all runs with run "", by run and job.
// The letter of a job that is retried stays until the job is done.
func (c *Client) Dead(ctx context.Context, run string) ([]record.DeadLetter, error) {
	var letters []record.DeadLetter
	if err := c.DeadEach(ctx, run, func(d record.DeadLetter) { letters = append(letters, d) }); err != nil {
		return nil, err
	}
	slices.SortFunc(letters, func(a, b record.DeadLetter) int {
		return strings.Compare(a.Run+"."+a.ID, b.Run+"."+b.ID)
	})
	return letters, nil
}

// DeadEach calls letter for each letter that Dead would list, the oldest first.
func (c *Client) DeadEach(ctx context.Context, run string, letter func(record.DeadLetter)) error {
	filter := deadSubjects
	if run != "" {
		if !score.ValidRunID(run) {
			return fmt.Errorf("list dead letters: %q is not a run ID", run)
		}
		filter = deadSubject(run, "*")
	}
	return c.fail("list dead letters", list(ctx, c, deadStream, filter, record.DecodeDeadLetter, letter))
}
