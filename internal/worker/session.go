package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/metrics"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/shard/pq"
	"surprisal/internal/store"
)

// session is the pipeline of one loaded model, from the first job that asks for
// it until one that asks for another, or the end.
type session struct {
	w        *Worker
	consumer *jobs.Consumer
	model    *loaded
	slots    chan struct{} // one a job in hand
	items    chan item
	budget   int     // tokens of a batch
	flops    float64 // of a token; 0: not known
	failed   []*task // had documents in the batch that the engine failed on
}

func newSession(w *Worker, c *jobs.Consumer, m *loaded) *session {
	return &session{
		w: w, consumer: c, model: m, slots: make(chan struct{}, w.cfg.InFlight),
		items: make(chan item, 64), // short documents come faster than they are packed one by one
	}
}

// run serves lease and those after it; next is a job for another model.
func (s *session) run(fetch, work context.Context, lease *jobs.Lease) (next *jobs.Lease, err error) {
	info := s.model.engine.Info()
	budget := info.MaxTokens
	if b := s.w.cfg.BatchTokens; b > 0 && b < budget {
		budget = max(b-b%score.SplitMultiple, score.SplitMultiple)
	}
	g, ctx := errgroup.WithContext(work)
	done := make(chan *task)
	s.budget, s.flops = budget, info.Flops
	p := newPacker(s.model.engine, budget)
	p.in, p.took = s.items, func(d time.Duration) { s.w.meter.Took(metrics.PhasePack, d) }
	g.Go(func() error {
		defer close(s.items)
		var err error
		next, err = s.feed(fetch, ctx, lease)
		return err
	})
	g.Go(func() error { return p.run(ctx) })
	g.Go(func() error { return s.forward(ctx, p.out, p.free, done) })
	g.Go(func() error { return s.commit(ctx, done) })
	err = g.Wait()
	s.w.tasks.hold(nil)
	s.settleRest(work, err)
	if err != nil && next != nil {
		s.giveBack(work, next)
		next = nil
	}
	return next, err
}

// feed reads one job after another into items.
func (s *session) feed(fetch, ctx context.Context, lease *jobs.Lease) (*jobs.Lease, error) {
	for lease != nil {
		if err := s.slot(ctx); err != nil {
			s.giveBack(ctx, lease)
			return nil, err
		}
		if err := s.take(ctx, lease); err != nil {
			return nil, err
		}
		var err error
		if lease, err = s.next(fetch, ctx); err != nil {
			return nil, err
		}
		if lease != nil && !s.model.serves(&lease.Job) {
			s.w.tasks.hold(lease)
			return lease, nil
		}
	}
	return nil, nil
}

// slot waits until another job may be in hand; what has been packed is flushed,
// since the wait may be for just that.
func (s *session) slot(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}
	if err := s.send(ctx, item{}); err != nil {
		return err
	}
	s.w.idle.because(metrics.CauseWriting)
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *session) send(ctx context.Context, it item) error {
	select {
	case s.items <- it:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// flushAfter is how long a partly filled batch waits for another job.
const flushAfter = 100 * time.Millisecond

// next waits for a job; nil when no more are to be taken. A request for a job is
// never cut short, since the job might be on its way.
func (s *session) next(fetch, ctx context.Context) (*jobs.Lease, error) {
	type result struct {
		lease *jobs.Lease
		err   error
	}
	// A pipeline that has failed waits for no job, which may be long in coming.
	s.w.idle.because(metrics.CauseNoJob)
	s.w.tasks.look() // the last one may have needed no scoring
	fetch, cancel := context.WithCancel(fetch)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	got := make(chan result, 1) // received below in every case
	go func() {
		l, err := s.consumer.Next(fetch, ctx)
		got <- result{l, err}
	}()
	timer := time.NewTimer(flushAfter)
	defer timer.Stop()
	var flushErr error
	for {
		select {
		case r := <-got:
			if r.err != nil {
				if errors.Is(ended(fetch, r.err), context.Canceled) {
					return nil, flushErr
				}
				return nil, r.err
			}
			if flushErr != nil {
				s.giveBack(ctx, r.lease)
				return nil, flushErr
			}
			return r.lease, nil
		case <-timer.C:
			flushErr = s.send(ctx, item{})
		}
	}
}

// take reads a job into items, or settles one that needs no scoring. It returns
// an error only when the session has to end.
func (s *session) take(ctx context.Context, lease *jobs.Lease) error {
	s.w.idle.because(metrics.CauseReading)
	t := &task{lease: lease, job: lease.Job, started: time.Now()}
	t.trace = s.w.trace(t)
	log := s.w.jobLog(t)
	if err := s.w.admit(&t.job); err != nil {
		s.fail(ctx, t, err)
		<-s.slots
		return nil
	}
	c, err := shard.Inspect(store.Within(ctx, s.w.outputs), place.Join(t.job.Out, t.job.Output))
	switch {
	case errors.Is(err, store.ErrOutside):
		s.fail(ctx, t, err)
		<-s.slots
		return nil
	case err == nil && c.Job == t.job.ID && c.ConfigDigest == t.job.ConfigDigest:
		log.Info().Msg("job was committed before: nothing to score")
		s.settle(t, lease.Done(ctx, totals(c.Totals, t)), nil)
		<-s.slots
		return nil
	}
	s.w.tasks.add(t)
	context.AfterFunc(lease.Context(), func() {
		switch err := context.Cause(lease.Context()); {
		case errors.Is(err, jobs.ErrStalled):
			log.Error().Err(err).Msg("the engine hangs: this worker ends")
			s.w.stalled(fmt.Errorf("job %s: %w", t.job.ID, err))
		case t.dropped() != nil:
			log.Warn().Err(err).Msg("job dropped: nothing more is written of it")
		}
	})
	log.Debug().Int("attempt", lease.Attempt).Msg("job taken")
	reading, done := context.WithCancelCause(ctx)
	stop := context.AfterFunc(lease.Context(), func() { done(context.Cause(lease.Context())) })
	t.err = s.read(reading, t)
	stop()
	done(nil)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.send(ctx, item{end: t})
}

func (s *session) read(ctx context.Context, t *task) (err error) {
	rows, err := s.w.opener.OpenRange(store.Within(ctx, s.w.inputs), t.job)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
	}()
	t.columns = rows.Columns()
	r := reading{tokenizer: s.model.tokenizer, vocab: s.model.engine.Info().VocabSize, threads: s.w.cfg.Threads,
		moved: t.lease.Progress, meter: s.w.meter, idle: s.w.idle}
	return r.read(ctx, t, rows, s.items)
}

// commit publishes finished tasks' scores, then acks.
func (s *session) commit(ctx context.Context, done <-chan *task) error {
	for {
		var t *task
		var ok bool
		select {
		case t, ok = <-done:
			if !ok {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err := t.err
		if dropped := t.dropped(); dropped != nil {
			err = dropped
		} else if err == nil {
			err = s.publish(ctx, t)
		}
		if ctx.Err() != nil && err != nil {
			return context.Cause(ctx) // settleRest gives it back
		}
		if err != nil {
			s.fail(ctx, t, err)
		}
		s.w.tasks.remove(t)
		<-s.slots
	}
}

// publish writes t's file and acks. An error is of the file.
func (s *session) publish(ctx context.Context, t *task) error {
	began, info := time.Now(), s.model.engine.Info()
	out, err := outdir.Create(store.Within(ctx, s.w.outputs), t.job, t.columns, shard.Metadata{
		Precision: info.Precision, Engine: string(info.Kind), Set: info.Set, Device: info.Device,
		Program: s.w.cfg.Program,
	})
	if err != nil {
		return err
	}
	defer func() { _ = out.Abort() }() // after Commit it does nothing
	slices.SortFunc(t.rows, func(a, b row) int { return cmp.Compare(a.score.Row, b.score.Row) })
	for i := range t.rows {
		if err := out.Write(t.rows[i].score, t.rows[i].kept); err != nil {
			return err
		}
	}
	if err := t.dropped(); err != nil {
		return err
	}
	c, err := out.Commit(ctx)
	if err != nil {
		return err
	}
	s.w.meter.Took(metrics.PhaseWrite, time.Since(began))
	t.trace.Phase(string(metrics.PhaseWrite), began, "documents", len(t.rows))
	sum := totals(c.Totals, t)
	if !c.Existed { // else whoever wrote it counts it, and was charged
		s.count(t, c.Totals)
		s.w.cost.charge(&sum)
	}
	s.w.jobsDone.Add(1)
	line := s.w.jobLog(t).Info().Int64("documents", c.Totals.Documents).Int64("tokens", c.Totals.Tokens).
		Int64("failed_rows", c.Totals.Failed).Int("attempt", t.lease.Attempt).Bool("existed", c.Existed).
		Dur("took", time.Since(t.started))
	if sum.Joules != nil {
		line = line.Float64("joules", *sum.Joules)
	}
	line.Msg("job committed")
	s.settle(t, t.lease.Done(ctx, sum), nil)
	return nil
}

// count counts a job that this worker committed.
func (s *session) count(t *task, c shard.Totals) {
	m := s.w.meter
	m.Committed(c.Documents, c.Failed, c.Tokens, c.Bytes)
	for i := range t.rows {
		if p, ok := t.rows[i].score.Perplexity(); ok && !math.IsInf(p, 0) {
			m.Perplexity(p)
		}
	}
}

// fail settles a task that has no output; the lease logs what becomes of it.
func (s *session) fail(ctx context.Context, t *task, err error) {
	if t.dropped() != nil {
		s.settle(t, t.lease.Abandon(ctx), err) // a superseded lease says so, and decides nothing
		return
	}
	if errors.Is(err, shard.ErrConflict) {
		s.w.meter.Conflict()
	}
	for _, permanent := range []error{
		shard.ErrInputChanged, pq.ErrCorrupt, pq.ErrColumn, shard.ErrConflict, shard.ErrRows, store.ErrOutside,
	} {
		if errors.Is(err, permanent) {
			s.settle(t, t.lease.Fail(ctx, err), err)
			return
		}
	}
	s.settle(t, t.lease.Retry(ctx, err), err)
}

// settle tells of a job that could not be settled; the output decides, so that
// is never more than work done twice. cause is why the job has none.
func (s *session) settle(t *task, err, cause error) {
	t.trace.End(cause)
	if err != nil {
		s.w.jobLog(t).Warn().Err(err).AnErr("cause", cause).Msg("queue was not told how the job ended")
	}
}

// settleRest gives back what is still in hand when a session ends early. Jobs in
// the batch that the engine failed on count an attempt: they may be its cause.
func (s *session) settleRest(ctx context.Context, err error) {
	rest := s.w.tasks.clear()
	if len(rest) == 0 {
		return
	}
	ctx, cancel := settleContext(ctx)
	defer cancel()
	for _, t := range rest {
		if slices.Contains(s.failed, t) {
			s.settle(t, t.lease.Retry(ctx, err), err)
		} else {
			s.settle(t, t.lease.Abandon(ctx), err)
		}
	}
}

func (s *session) giveBack(ctx context.Context, l *jobs.Lease) {
	ctx, cancel := settleContext(ctx)
	defer cancel()
	if err := l.Abandon(ctx); err != nil {
		s.w.log.Debug().Err(err).
			Str("job", l.Job.ID).Msg("job not given back: it is delivered again after its ack wait")
	}
}

func totals(c shard.Totals, t *task) record.Totals {
	return record.Totals{
		Documents: c.Documents, Failed: c.Failed, Tokens: c.Tokens, Bytes: c.Bytes, SumNLL: c.SumNLL, Top1: c.Top1,
		Seconds: time.Since(t.started).Seconds(),
	}
}
