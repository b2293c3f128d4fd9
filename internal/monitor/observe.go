package monitor

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/metrics"
)

// Observer keeps metrics of the queue, its workers and its dead letters current,
// and those of the run that Show is given.
type Observer struct {
	client  *jobs.Client
	meter   *metrics.Dispatcher
	log     zerolog.Logger
	workers map[string]*sighting
	ackWait time.Duration // the shortest of the runs in the queue
	letters string        // the dead letters' state when they were last counted
	counted time.Time     // no earlier than this: counting took long
}

// sighting is a worker as last seen. Its clock is not compared with any other.
type sighting struct {
	record record.Worker
	moved  time.Time // when its record was last seen to change
	gone   time.Time // when it was found to have vanished with jobs in hand; zero: it has not
}

// NewObserver makes an observer; Run it.
func NewObserver(client *jobs.Client, meter *metrics.Dispatcher, log zerolog.Logger) *Observer {
	meter.Connected(client.Connected)
	return &Observer{client: client, meter: meter, log: log, workers: map[string]*sighting{}}
}

// observeEvery is how often an observer looks, which costs the server a few small
// requests.
const observeEvery = 2 * time.Second

// Run keeps the metrics current until ctx ends. A request that fails is repeated at
// the next look.
func (o *Observer) Run(ctx context.Context) error { return o.run(ctx, func() {}) }

func (o *Observer) run(ctx context.Context, also func()) error {
	ticker := time.NewTicker(observeEvery)
	defer ticker.Stop()
	for {
		for _, look := range []func(context.Context) error{o.queue, o.crew, o.dead, o.store} {
			if err := look(ctx); err != nil && ctx.Err() == nil {
				o.log.Debug().Err(err).Msg("metrics not updated; retrying")
			}
		}
		also()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Show updates the metrics of a run.
func (o *Observer) Show(p Progress) {
	o.meter.SetRun(metrics.Run{
		ID: p.Run, Jobs: p.States, Rows: p.Rows, Documents: p.Documents, Tokens: p.Tokens, TokensPerSec: p.Rate,
		Left: p.Left, LastCommit: p.LastCommit, Paused: p.Paused,
	})
}

// Unready says why the metrics may be out of date, one line for each reason.
func (o *Observer) Unready() []string {
	if !o.client.Connected() {
		return []string{"no NATS server answers"}
	}
	return nil
}

// RunsObserver is an Observer that also keeps the metrics of all of a Monitor's runs
// current.
type RunsObserver struct {
	Observer
	runs  func() (Overview, bool)
	shown map[string]time.Time // runs with metrics, and since when
}

// NewRunsObserver makes an observer; Run it. runs is what a Monitor knows, once there
// is one.
func NewRunsObserver(
	client *jobs.Client, meter *metrics.Dispatcher, runs func() (Overview, bool), log zerolog.Logger,
) *RunsObserver {
	return &RunsObserver{Observer: *NewObserver(client, meter, log), runs: runs, shown: map[string]time.Time{}}
}

// Run keeps the metrics current until ctx ends.
func (o *RunsObserver) Run(ctx context.Context) error { return o.run(ctx, o.overview) }

// shownFor is how long the metrics of a run remain after its end.
const shownFor = time.Hour

func (o *RunsObserver) overview() {
	over, ok := o.runs()
	if !ok || over.Seen.IsZero() {
		return
	}
	present := map[string]bool{}
	for i, r := range over.Runs {
		id, more := r.Run.ID, over.More[i]
		since, shown := o.shown[id]
		expired := time.Since(r.Run.Updated) > shownFor && time.Since(since) > shownFor
		if r.Run.State.Final() && (!shown || expired) {
			continue
		}
		present[id] = true
		if more.Counting {
			continue
		}
		if !shown {
			o.shown[id] = time.Now()
		}
		o.meter.SetRun(runMetrics(r, more, over.Workers, o.shown[id]))
	}
	for id := range o.shown {
		if !present[id] {
			delete(o.shown, id)
			o.meter.DropRun(id)
		}
	}
}

func runMetrics(r RunStatus, more RunMore, workers []record.Worker, since time.Time) metrics.Run {
	m := metrics.Run{
		ID: r.Run.ID, Jobs: map[string]int{"queued": r.Run.Jobs}, Rows: r.Run.Rows, Documents: r.Documents,
		Tokens:       r.Tokens,
		TokensPerSec: r.Pace.TokensPerSec, Left: -1, LastCommit: more.LastDone, Paused: r.Run.State == record.RunPaused,
	}
	for state, n := range r.Jobs {
		m.Jobs[string(state)] = n
		m.Jobs["queued"] = max(0, m.Jobs["queued"]-n)
	}
	if r.Run.State.Final() {
		// The remaining jobs of a cancelled run are not a backlog.
		m.Jobs = map[string]int{"done": m.Jobs["done"], "dead": m.Jobs["dead"]}
	}
	if r.Run.State == record.RunComplete {
		m.Jobs = map[string]int{"done": r.Run.Jobs} // some may have been done with an earlier queue
		m.Documents = max(m.Documents, r.Run.Rows)
	}
	if m.LastCommit.Before(since) {
		m.LastCommit = since
	}
	if r.Pace.Left != nil {
		m.Left = time.Duration(*r.Pace.Left * float64(time.Second))
	}
	for _, w := range workers {
		for _, h := range w.Progress {
			if h.Run == r.Run.ID && !r.Run.State.Final() {
				m.Documents, m.Tokens = m.Documents+h.Documents, m.Tokens+h.Tokens
			}
		}
	}
	return m
}

func (o *Observer) queue(ctx context.Context) error {
	q, err := o.client.Queue(ctx)
	if err != nil {
		return err
	}
	m := metrics.Queue{
		Pending: float64(q.Pending), InHand: float64(q.AckPending), Redelivered: float64(q.Redelivered),
		Bytes: float64(q.Bytes), Oldest: q.Oldest,
	}
	for _, r := range q.Runs {
		if m.AckWait == 0 || r.Config.AckWait < m.AckWait {
			m.AckWait = r.Config.AckWait
		}
	}
	o.ackWait = m.AckWait
	o.meter.SetQueue(m)
	return nil
}

// goneFor is the least time for which a vanished worker is shown after its jobs' ack
// wait, so that people notice it.
const goneFor = time.Minute

// crew counts the workers. A worker that vanished with jobs in hand counts as silent
// until others have settled them.
func (o *Observer) crew(ctx context.Context) error {
	list, err := o.client.Workers(ctx)
	if err != nil {
		return err
	}
	now, listed, count := time.Now(), map[string]bool{}, map[metrics.WorkerKind]int{}
	for _, r := range list {
		listed[r.ID] = true
		s := o.workers[r.ID]
		if s == nil {
			s = &sighting{moved: now}
			o.workers[r.ID] = s
		}
		if !s.record.Updated.Equal(r.Updated) {
			s.moved = now
		}
		s.record, s.gone = r, time.Time{}
		count[metrics.WorkerKind{Engine: r.Engine, State: workerState(r)}]++
	}
	oldest := time.Duration(0)
	for id, s := range o.workers {
		if !listed[id] {
			keep, err := o.silent(ctx, s, now)
			if err != nil {
				return err
			}
			if !keep {
				delete(o.workers, id)
				continue
			}
		}
		oldest = max(oldest, now.Sub(s.moved))
	}
	o.meter.SetWorkers(count, oldest)
	return nil
}

// silent reports whether a worker that is no longer listed needs attention: its record
// expired, and its jobs in hand are not settled yet or were settled recently.
func (o *Observer) silent(ctx context.Context, s *sighting, now time.Time) (bool, error) {
	held := false
	for _, p := range s.record.Progress {
		j, err := o.client.Job(ctx, p.Run, p.Job)
		if err != nil {
			continue // deleted with its run
		}
		// Still recorded as its own, or in hand of another worker.
		held = held || j.State == record.StateRunning
	}
	if s.gone.IsZero() {
		if len(s.record.Progress) == 0 || now.Sub(s.moved) < jobs.WorkerTTL/2 {
			return false, nil // it had no jobs in hand, or deleted its record on exit
		}
		s.gone = now
		o.meter.Vanished()
		o.log.Warn().Str("worker", s.record.ID).Str("host", s.record.Host).Int("jobs", len(s.record.Progress)).
			Msg("worker vanished with jobs in hand")
	}
	return held || now.Sub(s.gone) < o.ackWait+goneFor, ctx.Err()
}

func workerState(r record.Worker) string {
	switch {
	case r.Stalled != "":
		return "stalled"
	case r.Draining:
		return "draining"
	case len(r.Progress) > 0:
		return "busy"
	}
	return "idle"
}

// dead counts the dead letters again if any was written or deleted since.
func (o *Observer) dead(ctx context.Context) error {
	state, err := o.client.DeadState(ctx)
	if err != nil || state == o.letters || time.Now().Before(o.counted) {
		return err
	}
	start := time.Now()
	letters, err := o.client.Dead(ctx, "")
	if err != nil {
		return err
	}
	o.letters = state
	o.counted = time.Now().Add(10 * time.Since(start)) // reading many takes long
	o.meter.SetDeadLetters(len(letters))
	return nil
}

func (o *Observer) store(ctx context.Context) error {
	used, limit, err := o.client.Store(ctx)
	if err == nil {
		o.meter.SetStore(float64(used), float64(limit))
	}
	return err
}
