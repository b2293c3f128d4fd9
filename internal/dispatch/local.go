package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/embedded"
	"surprisal/internal/jobs/record"
	"surprisal/internal/metrics"
	"surprisal/internal/monitor"
	"surprisal/internal/score"
	"surprisal/internal/usage"
)

// Local scores a whole run on this machine, with a NATS server in this process and
// worker processes that end with it.
type Local struct {
	Workers   int      // processes; default one for each GPU, or one for the CPU
	WorkerBin string   // the worker program; default beside this one, else on PATH
	Threads   int      // cores for each worker; default all, shared
	Args      []string // further arguments for each worker
	WorkerLog io.Writer
	// ArgsOf are arguments for one worker, numbered from 0, in addition to Args.
	ArgsOf func(slot int) []string
	// Metrics, if set, are kept current by an observer of the run's queue, which
	// Observe gets.
	Metrics  *metrics.Dispatcher
	Observe  func(*monitor.Observer)
	Report   func(monitor.Progress)
	Draining func() // called when a drain begins
	Log      zerolog.Logger
}

// ErrInterrupted: the run was drained before it was complete. Committed scores
// stay; the same request continues from there.
var ErrInterrupted = errors.New("interrupted")

// Run plans req, scores what OUT lacks and summarizes. When drain ends, workers
// finish the jobs in hand and Run returns ErrInterrupted; when ctx ends, everything
// stops at once.
func (l *Local) Run(drain, ctx context.Context, req Request) (*Summary, error) {
	started := time.Now()
	bin, err := FindWorker(l.WorkerBin)
	if err != nil {
		return nil, err
	}
	var workers []string
	req.Engine = func(ctx context.Context, e score.EngineKind) (_ score.EngineKind, _ int, err error) {
		have, err := AskEngines(ctx, bin)
		if err != nil {
			return "", 0, err
		}
		if e == score.EngineAuto {
			e = have.best()
		}
		if !have.Has(e) { // checked before OUT is bound to the engine
			return "", 0, usage.Errorf("--engine %s: the worker program supports only %v on this machine", e,
				have.Engines)
		}
		workers, err = l.workers(e, have)
		return e, len(workers), err
	}
	// Workers end with their dispatcher, so every temporary file is stale.
	s, err := Begin(ctx, req, 0, l.Log, nil)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	before := s.Committed.Totals
	m := s.Manifest
	end := ending{committed: s.Committed}
	if countPending(m, s.Committed) > 0 {
		l.Log.Info().Str("run", m.Run).Str("engine", string(m.Options.Engine)).Int("files", len(m.Files)).
			Int("jobs", m.JobCount()).Int("committed", len(s.Committed.Jobs)).Msg("run started")
		end, err = l.score(drain, ctx, bin, workers, s)
		if err != nil && !errors.Is(err, ErrInterrupted) {
			return nil, err
		}
	}
	interrupted := errors.Is(err, ErrInterrupted)
	if interrupted {
		if end.committed, err = Reconcile(ctx, m); err != nil {
			return nil, err
		}
	}
	sum, err := Summarize(ctx, m, end.committed, end.dead, before, time.Since(started))
	if err != nil {
		return nil, err
	}
	sum.WorkerFailures = end.failed
	bill(ctx, alone{}, m, sum, end.cost, l.Log)
	if err := Finish(ctx, m, sum); err != nil {
		return nil, err
	}
	if interrupted && !sum.Complete {
		return sum, ErrInterrupted
	}
	return sum, nil
}

// workers names the processes to run: one for each GPU, or one for the CPU.
func (l *Local) workers(e score.EngineKind, have Engines) (names []string, err error) {
	if e != score.EngineCUDA {
		for i := range max(l.Workers, 1) {
			names = append(names, fmt.Sprintf("CPU worker %d", i))
		}
		return names, nil
	}
	for i, gpu := range have.GPUs {
		names = append(names, fmt.Sprintf("GPU %d (%s)", i, gpu.Name))
	}
	switch n := len(names); {
	case l.Workers > n:
		return nil, usage.Errorf("--workers %d: one worker for each GPU, and only %d GPUs are visible", l.Workers, n)
	case l.Workers > 0:
		names = names[:l.Workers]
	}
	return names, nil
}

// localAckWait is short: there is no network between workers and the queue, and a
// killed worker's job should be retried soon.
const localAckWait = 15 * time.Second

// ending is how the jobs of a run ended.
type ending struct {
	committed *Committed
	dead      []DeadJob
	cost      score.Cost // as the queue's records have it, which are lost with the queue
	failed    []WorkerFailure
}

// score runs server, workers and watch until every job is committed or dead.
func (l *Local) score(drain, ctx context.Context, bin string, workers []string, s *Submitted) (end ending, err error) {
	q, err := l.startQueue(ctx)
	if err != nil {
		return end, err
	}
	defer q.close()
	if err := s.Queue(ctx, q.client, QueueOptions{Run: record.RunConfig{AckWait: localAckWait}}); err != nil {
		return end, err
	}
	w := l.newCrew(workers[:min(len(workers), s.Queued)])
	c := command{bin: bin, engine: s.Manifest.Options.Engine, threads: l.threads(len(w.names)), env: q.at.Environ()}
	end.committed, end.dead, err = l.follow(drain, ctx, q.client, w, c, s)
	end.failed = w.failed()
	end.cost = costOf(ctx, q.client, s.Manifest.Run, l.Log)
	switch {
	case end.committed != nil && err == nil:
		return end, nil
	case drain.Err() != nil && (err == nil || errors.Is(err, ErrInterrupted) || errors.Is(err, context.Canceled)):
		err = ErrInterrupted
	case err == nil:
		err = errors.New("the workers exited before the run was complete")
	}
	end.committed, end.dead = nil, nil
	return end, err
}

// localQueue is a NATS server in this process. It is disposable: an interrupted run
// continues from its manifest and its score files.
type localQueue struct {
	dir    string
	server *embedded.Server
	client *jobs.Client
	at     conn.Config
}

func (l *Local) startQueue(ctx context.Context) (q *localQueue, err error) {
	q = &localQueue{}
	defer func() {
		if err != nil {
			q.close()
		}
	}()
	if q.dir, err = os.MkdirTemp("", "surprisal-queue-"); err != nil {
		return nil, fmt.Errorf("create the queue's folder: %w", err)
	}
	q.server, err = embedded.Start(ctx, embedded.Config{StoreDir: q.dir, Log: l.Log.Level(zerolog.WarnLevel)})
	if err != nil {
		return nil, err
	}
	q.at = conn.Config{URLs: []string{q.server.URL()}, Token: q.server.Token(), Name: "surprisal dispatcher",
		Log: l.Log}
	q.client, err = jobs.Connect(ctx, q.at)
	return q, err
}

func (q *localQueue) close() {
	if q.client != nil {
		q.client.Close()
	}
	if q.server != nil {
		q.server.Shutdown()
	}
	if q.dir != "" {
		_ = os.RemoveAll(q.dir)
	}
}

// follow runs workers and watches the run until its end. When drain ends it stops the
// workers and returns ErrInterrupted once they have exited.
func (l *Local) follow(
	drain, ctx context.Context, client *jobs.Client, w *crew, c command, s *Submitted,
) (committed *Committed, dead []DeadJob, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, stopWorkers := context.WithCancel(drain)
	defer stopWorkers()
	g, gctx := errgroup.WithContext(ctx)
	report, endObserver := l.observe(gctx, g, client)
	defer endObserver()
	exited := make(chan struct{}) // closed when all workers have exited
	g.Go(func() error {
		defer close(exited)
		return w.run(stop, gctx, c)
	})
	watchCtx, endWatch := context.WithCancelCause(gctx)
	defer endWatch(nil)
	g.Go(func() (err error) {
		defer stopWorkers()
		defer endObserver()
		committed, dead, err = newWatch(client, s.Manifest, s.Committed, report, l.Log, alone{}).run(watchCtx)
		return err
	})
	g.Go(func() error {
		select {
		case <-drain.Done():
		case <-watchCtx.Done():
			return nil
		case <-exited:
			return nil
		}
		l.Draining()
		select {
		case <-exited:
		case <-gctx.Done():
		}
		endWatch(ErrInterrupted)
		return nil
	})
	err = g.Wait()
	return committed, dead, err
}

// observe starts an observer of the queue in g, if metrics are wanted. report is
// Report, with the observer in between.
func (l *Local) observe(
	ctx context.Context, g *errgroup.Group, client *jobs.Client,
) (report func(monitor.Progress), end func()) {
	if l.Metrics == nil {
		return l.Report, func() {}
	}
	ctx, end = context.WithCancel(ctx)
	o := monitor.NewObserver(client, l.Metrics, l.Log)
	l.Observe(o)
	g.Go(func() error { return o.Run(ctx) })
	return func(p monitor.Progress) { o.Show(p); l.Report(p) }, end
}
