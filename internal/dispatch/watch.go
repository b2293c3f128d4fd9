package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/monitor"
	"surprisal/internal/score"
)

// DeadJob is a job that no worker takes again until it is retried.
type DeadJob struct {
	Job    string `json:"job"`
	File   string `json:"file"`
	First  int64  `json:"first"`
	Last   int64  `json:"last"`
	Reason string `json:"reason"`
}

// watch follows a run's jobs until each of them is committed or dead.
type watch struct {
	client  *jobs.Client
	m       *score.Manifest
	report  func(monitor.Progress)
	log     zerolog.Logger
	started time.Time
	rows    int64
	before  progressSum // committed before this watch began
	jobs    *monitor.Tracker
	rates   rateWindow
	resent  int
	tenure  tenure
	epoch   uint64    // of the last submission that this watch knows of; 0: none yet
	paused  bool      // as of checked
	checked time.Time // when the run's record was last read
	commit  time.Time // when a job was last done
}

// tenure tells whether this dispatcher may requeue lost jobs and finish the run now.
type tenure interface{ Held() bool }

// alone is the tenure of a dispatcher that has the queue to itself.
type alone struct{}

// Held is true.
func (alone) Held() bool { return true }

type progressSum struct{ documents, tokens int64 }

func newWatch(
	client *jobs.Client, m *score.Manifest, c *Committed, report func(monitor.Progress), log zerolog.Logger, t tenure,
) *watch {
	w := &watch{
		client: client, m: m, tenure: t, report: report, log: log, started: time.Now(),
		before: progressSum{c.Totals.Documents, c.Totals.Tokens}, jobs: monitor.Track(m), commit: time.Now(),
	}
	for id := range c.Jobs {
		w.jobs.Commit(id)
	}
	for i := range m.Files {
		w.rows += m.Files[i].Rows
	}
	return w
}

const (
	tick = 500 * time.Millisecond
	// quiet is how long the watch waits for a change while the queue is empty before it
	// reads OUT: records may be lost, committed files are not.
	quiet = 5 * time.Second
	// maxResend bounds how often jobs are requeued that the queue lost or whose files
	// were deleted.
	maxResend = 3
)

// run returns the dead jobs once every other one is committed.
func (w *watch) run(ctx context.Context) (*Committed, []DeadJob, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	states := make(chan record.Job, 256) // buffers a burst while progress is drawn
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.client.Reap(ctx) })
	g.Go(func() error {
		return w.client.WatchRun(ctx, w.m.Run, func(s record.Job) {
			select {
			case states <- s:
			case <-ctx.Done():
			}
		}, func() {})
	})
	var committed *Committed
	var dead []DeadJob
	g.Go(func() (err error) {
		defer cancel() // stops the others
		committed, dead, err = w.follow(ctx, states)
		return err
	})
	err := g.Wait()
	if committed != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return committed, dead, nil
	}
	return nil, nil, err
}

func (w *watch) follow(ctx context.Context, states <-chan record.Job) (*Committed, []DeadJob, error) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	changed, show := time.Now(), w.before
	for ctx.Err() == nil {
		// Buffered records are taken before progress is drawn.
		for n := len(states); n > 0 && !w.jobs.Finished(); n-- {
			w.take(<-states)
			changed = time.Now()
		}
		if !w.jobs.Finished() {
			select {
			case s := <-states:
				w.take(s)
				changed = time.Now()
				continue
			case <-ticker.C:
				show = w.draw(ctx, show)
				if err := w.check(ctx); err != nil {
					return nil, nil, err
				}
				idle, err := w.idle(ctx, changed)
				if err != nil || !idle {
					continue // no answer: the next tick asks again
				}
			case <-ctx.Done():
				return nil, nil, context.Cause(ctx)
			}
		}
		c, err := Reconcile(ctx, w.m)
		if err != nil {
			return nil, nil, err
		}
		lost := w.jobs.Settle(c.Jobs)
		if len(lost) == 0 {
			w.draw(ctx, show)
			return c, w.dead(), nil
		}
		if !w.tenure.Held() { // the dispatcher that has the run requeues them
			select {
			case <-time.After(tick):
			case <-ctx.Done():
				return nil, nil, context.Cause(ctx)
			}
			if err := w.check(ctx); err != nil {
				return nil, nil, err
			}
			changed = time.Now()
			continue
		}
		// The record that a job is dead may still be on its way.
		if err := w.deaths(ctx); err != nil {
			return nil, nil, err
		}
		if lost = w.jobs.Settle(c.Jobs); len(lost) == 0 {
			continue
		}
		if w.resent++; w.resent > maxResend {
			j := w.jobs.Job(lost[0])
			return nil, nil, fmt.Errorf("%d jobs of run %s are neither committed, dead nor queued after %d attempts "+
				"to requeue them (one is rows %d-%d of %s)",
				len(lost), w.m.Run, maxResend, j.First, j.Last, j.Input.Rel)
		}
		w.log.Warn().Int("jobs", len(lost)).Msg("jobs lost by the queue, or score files deleted; requeuing")
		if err := w.resubmit(ctx, lost); err != nil {
			return nil, nil, err
		}
		changed = time.Now()
	}
	return nil, nil, context.Cause(ctx)
}

// idle reports whether nothing has changed for a while and the queue is empty.
func (w *watch) idle(ctx context.Context, changed time.Time) (bool, error) {
	if time.Since(changed) < quiet {
		return false, nil
	}
	q, err := w.client.RunQueue(ctx, w.m.Run)
	switch {
	case errors.Is(err, jobs.ErrNoRun):
		return true, nil // the run's queue was closed, or never opened
	case err != nil:
		return false, err
	case q.Pending > 0 || q.AckPending > 0:
		return false, nil
	}
	held, err := w.client.Holds(ctx, w.m.Run) // jobs that reached MaxDeliver are in neither count
	return !held, err
}

// deaths takes the records of dead jobs that the watch has not seen yet.
func (w *watch) deaths(ctx context.Context) error {
	return w.client.JobStates(ctx, w.m.Run, func(s record.Job) {
		if s.State == record.StateDead && w.jobs.Open(s.Job) {
			w.take(s)
		}
	})
}

func (w *watch) resubmit(ctx context.Context, lost []int32) error {
	r, err := w.client.Run(ctx, w.m.Run)
	if err != nil {
		return err
	}
	if err := w.client.OpenRun(ctx, r.ID, r.Priority, record.RunConfig{}, r.Config); err != nil {
		return err
	}
	epoch, err := queueJobs(ctx, w.client, w.m.Run, w.jobs.Jobs(lost))
	if err == nil && epoch == w.epoch+1 {
		w.epoch = epoch
	}
	return err
}

var (
	// ErrCancelled: a person cancelled the run. Committed scores stay.
	ErrCancelled = errors.New("the run was cancelled")
	// errAnew: another dispatcher has submitted jobs since the watch began.
	errAnew = errors.New("jobs were submitted meanwhile")
)

// checkEvery is how often the run's record is read.
const checkEvery = time.Second

// check finds out whether the run was paused or cancelled, or more jobs submitted.
func (w *watch) check(ctx context.Context) error {
	if time.Since(w.checked) < checkEvery {
		return nil
	}
	r, err := w.client.Run(ctx, w.m.Run)
	switch {
	case errors.Is(err, jobs.ErrNoRun), errors.Is(err, jobs.ErrNotSetUp):
		return wiped(w.m)
	case err != nil:
		return nil // no answer: ask again later
	}
	w.checked = time.Now()
	if w.epoch == 0 {
		w.epoch = r.Epoch
	}
	w.paused = r.State == record.RunPaused
	switch {
	case r.State == record.RunCancelled:
		return ErrCancelled
	case r.Epoch != w.epoch:
		return errAnew
	}
	return nil
}

func wiped(m *score.Manifest) error {
	return fmt.Errorf("the queue no longer knows run %s: its store was lost; continue with `dispatcher resume %s`",
		m.Run, m.Out)
}

// take notes a job's newest record.
func (w *watch) take(s record.Job) {
	i, ours := w.jobs.Take(s)
	if !ours {
		return
	}
	if s.State == record.StateDone {
		w.commit = time.Now()
	}
	j := w.jobs.Job(i)
	e := w.log.Info()
	switch s.State {
	case record.StateRunning:
		e = w.log.Debug()
	case record.StateFailed, record.StateWaiting:
		e = w.log.Warn()
	case record.StateDead:
		e = w.log.Error()
	}
	e = e.Str("run", s.Run).Str("job", s.Job).Str("file", j.Input.Rel).Int64("first", j.First).Int64("last", j.Last).
		Str("worker", s.Worker).Int("attempt", s.Attempt)
	if s.Totals != nil {
		e = e.Int64("documents", s.Totals.Documents).Int64("tokens", s.Totals.Tokens).
			Int64("failed_rows", s.Totals.Failed)
	}
	if s.Error != "" {
		e = e.Str("error", s.Error)
	}
	e.Msg("job " + string(s.State))
}

// dead lists the dead jobs.
func (w *watch) dead() (dead []DeadJob) {
	for j, reason := range w.jobs.Dead() {
		dead = append(dead, DeadJob{Job: j.ID, File: j.Input.Rel, First: j.First, Last: j.Last, Reason: reason})
	}
	return dead
}

// draw reports progress: committed documents, and those that workers report for jobs
// in hand. The numbers shown never decrease while a job in hand is being committed.
func (w *watch) draw(ctx context.Context, shown progressSum) progressSum {
	t := w.jobs
	p := monitor.Progress{
		Jobs: t.Len(), Rows: w.rows, Elapsed: time.Since(w.started), Left: -1, Paused: w.paused, Done: t.Committed(),
		Dead: t.Count(record.StateDead), Running: t.Count(record.StateRunning), Waiting: t.Waiting(),
		Run: w.m.Run, States: t.States(), LastCommit: w.commit,
	}
	documents, tokens := t.Scored()
	now := progressSum{w.before.documents + documents, w.before.tokens + tokens}
	if workers, err := w.client.Workers(ctx); err == nil {
		p.Workers = len(workers)
		for _, wr := range workers {
			for _, h := range wr.Progress {
				if h.Run == w.m.Run && t.Open(h.Job) {
					now.documents += h.Documents
					now.tokens += h.Tokens
				}
			}
		}
	}
	now.documents, now.tokens = max(now.documents, shown.documents), max(now.tokens, shown.tokens)
	p.Documents, p.Tokens = now.documents, now.tokens
	p.Rate = w.rates.add(now.tokens)
	if docs := now.documents - w.before.documents; docs > 0 {
		perDoc := p.Elapsed.Seconds() / float64(docs)
		p.Left = time.Duration(perDoc * float64(w.rows-now.documents) * float64(time.Second))
	}
	w.report(p)
	return now
}

// rateWindow is tokens/s over the last ten seconds.
type rateWindow struct {
	at     []time.Time
	tokens []int64
}

func (r *rateWindow) add(tokens int64) float64 {
	now := time.Now()
	r.at, r.tokens = append(r.at, now), append(r.tokens, tokens)
	for len(r.at) > 2 && now.Sub(r.at[0]) > 10*time.Second {
		r.at, r.tokens = r.at[1:], r.tokens[1:]
	}
	dt := now.Sub(r.at[0]).Seconds()
	if dt <= 0 {
		return 0
	}
	return float64(tokens-r.tokens[0]) / dt
}
