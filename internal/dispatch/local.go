package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
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

// Local runs a whole run on this machine: a NATS server in this process, worker
// processes beside it, all gone when it ends.
type Local struct {
	Workers   int      // processes; default one a GPU, or one for the CPU
	WorkerBin string   // the worker program; default beside this one, else on PATH
	Threads   int      // cores of each; default all, shared
	Args      []string // further arguments for each worker
	WorkerLog io.Writer
	// ArgsOf are those of one of them, 0, 1 …, beside Args.
	ArgsOf func(slot int) []string
	// Observe is told of an observer of the run's queue, which runs with it, on
	// Metrics; nil without.
	Metrics  *metrics.Dispatcher
	Observe  func(*monitor.Observer)
	Report   func(monitor.Progress)
	Draining func() // told when a drain begins
	Log      zerolog.Logger
}

// ErrInterrupted: a drain was asked for and the run is not complete. What is
// committed stays; the same request goes on from there.
var ErrInterrupted = errors.New("interrupted")

// Run plans req, scores what OUT does not hold and adds up. When drain ends,
// workers finish what they have in hand and Run returns ErrInterrupted; when ctx
// ends, everything stops at once.
func (l *Local) Run(drain, ctx context.Context, req Request) (*Summary, error) {
	started := time.Now()
	bin, err := FindWorker(l.WorkerBin)
	if err != nil {
		return nil, err
	}
	var workers int
	req.Engine = func(ctx context.Context, e score.EngineKind) (_ score.EngineKind, _ int, err error) {
		have, err := AskEngines(ctx, bin)
		if err != nil {
			return "", 0, err
		}
		if e == score.EngineAuto {
			e = have.best()
		}
		if !have.Has(e) { // before OUT is pinned to it
			return "", 0, usage.Errorf("--engine %s: the worker program has only %v on this machine", e, have.Engines)
		}
		workers, err = l.workers(e, have)
		return e, workers, err
	}
	// Workers here end with their dispatcher, so every temporary is a dead one's.
	s, err := Begin(ctx, req, 0, l.Log, nil)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	before := s.Committed.Totals
	m := s.Manifest
	committed, dead := s.Committed, []DeadJob(nil)
	var cost score.Cost
	if countPending(m, s.Committed) > 0 {
		l.Log.Info().Str("run", m.Run).Str("engine", string(m.Options.Engine)).Int("files", len(m.Files)).
			Int("jobs", m.JobCount()).Int("committed", len(s.Committed.Jobs)).Msg("run begins")
		committed, dead, cost, err = l.score(drain, ctx, bin, workers, s)
		if err != nil && !errors.Is(err, ErrInterrupted) {
			return nil, err
		}
	}
	interrupted := errors.Is(err, ErrInterrupted)
	if interrupted {
		if committed, err = Reconcile(ctx, m); err != nil {
			return nil, err
		}
	}
	sum, err := Summarize(ctx, m, committed, dead, before, time.Since(started))
	if err != nil {
		return nil, err
	}
	bill(ctx, alone{}, m, sum, cost, l.Log)
	if err := Finish(ctx, m, sum); err != nil {
		return nil, err
	}
	if interrupted && !sum.Complete {
		return sum, ErrInterrupted
	}
	return sum, nil
}

// workers is how many processes to run: one a GPU, or one for the CPU.
func (l *Local) workers(e score.EngineKind, have Engines) (int, error) {
	switch n := len(have.GPUs); {
	case e != score.EngineCUDA:
		return max(l.Workers, 1), nil
	case l.Workers > n:
		return 0, usage.Errorf("--workers %d: one a GPU, and this machine shows %d", l.Workers, n)
	case l.Workers == 0:
		return n, nil
	}
	return l.Workers, nil
}

// localAckWait is short: no network lies between worker and queue, and a killed
// worker's job should not wait for long.
const localAckWait = 15 * time.Second

// score runs server, workers and watch until every job is committed or dead. The
// cost is what its queue's records tell, which go with it.
func (l *Local) score(drain, ctx context.Context, bin string, workers int, s *Submitted) (_ *Committed, _ []DeadJob, cost score.Cost, _ error) {
	// The queue is disposable: a run that is cut off is taken up from its
	// manifest and its files.
	dir, err := os.MkdirTemp("", "surprisal-queue-")
	if err != nil {
		return nil, nil, cost, fmt.Errorf("make the queue's folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	server, err := embedded.Start(ctx, embedded.Config{StoreDir: dir, Log: l.Log.Level(zerolog.WarnLevel)})
	if err != nil {
		return nil, nil, cost, err
	}
	defer server.Shutdown()
	at := conn.Config{URLs: []string{server.URL()}, Token: server.Token(), Name: "surprisal dispatcher", Log: l.Log}
	client, err := jobs.Connect(ctx, at)
	if err != nil {
		return nil, nil, cost, err
	}
	defer client.Close()
	if err := s.Queue(ctx, client, QueueOptions{Run: record.RunConfig{AckWait: localAckWait}}); err != nil {
		return nil, nil, cost, err
	}
	if n := s.Queued; workers > n {
		workers = n
	}
	asked := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, stopWorkers := context.WithCancel(drain)
	defer stopWorkers()
	g, gctx := errgroup.WithContext(ctx)
	observed, endObserver := context.WithCancel(gctx)
	defer endObserver()
	report := l.Report
	if l.Metrics != nil {
		o := monitor.NewObserver(client, l.Metrics, nil, l.Log)
		l.Observe(o)
		report = func(p monitor.Progress) { o.Show(p); l.Report(p) }
		g.Go(func() error { return o.Run(observed) })
	}
	var committed *Committed
	var dead []DeadJob
	drained := make(chan struct{}) // closed when all workers have ended after a drain
	crew, cctx := errgroup.WithContext(gctx)
	for i := range workers {
		crew.Go(func() error {
			return l.supervise(stop, cctx, command{bin, s.Manifest.Options.Engine, i, l.threads(workers), at.Environ()})
		})
	}
	g.Go(func() error {
		defer close(drained)
		return crew.Wait()
	})
	watchCtx, endWatch := context.WithCancelCause(gctx)
	defer endWatch(nil)
	g.Go(func() error {
		defer stopWorkers()
		defer endObserver()
		w := newWatch(client, s.Manifest, s.Committed, report, l.Log, alone{})
		var err error
		committed, dead, err = w.run(watchCtx)
		return err
	})
	g.Go(func() error {
		select {
		case <-drain.Done():
		case <-watchCtx.Done():
			return nil
		case <-drained:
			return nil
		}
		l.Draining()
		select {
		case <-drained:
		case <-gctx.Done():
		}
		endWatch(ErrInterrupted)
		return nil
	})
	err = g.Wait()
	cost = costOf(asked, client, s.Manifest.Run, l.Log)
	if committed != nil && err == nil {
		return committed, dead, cost, nil
	}
	if drain.Err() != nil && (err == nil || errors.Is(err, ErrInterrupted) || errors.Is(err, context.Canceled)) {
		return nil, nil, cost, ErrInterrupted
	}
	if err == nil {
		err = errors.New("the workers ended before the run did")
	}
	return nil, nil, cost, err
}

// command is one worker process to run.
type command struct {
	bin     string
	engine  score.EngineKind
	slot    int // the GPU's ordinal, on GPUs
	threads int
	env     []string // how to reach the queue; a command line would show the token
}

// A worker that ends by itself this often without having lived for a while is
// not started again.
const (
	maxDeaths  = 5
	shortLived = 30 * time.Second
)

// supervise keeps one worker process alive until stop ends, then waits for it.
func (l *Local) supervise(stop, ctx context.Context, c command) error {
	deaths := 0
	for {
		started := time.Now()
		err := l.worker(stop, ctx, c)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case stop.Err() != nil:
			if err != nil {
				l.Log.Warn().Err(err).Int("slot", c.slot).Msg("a worker ended badly while it drained")
			}
			return nil
		case err == nil:
			err = errors.New("it ended without being told to")
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 2 {
			return fmt.Errorf("worker: wrong usage or environment, see its message above")
		}
		if time.Since(started) > shortLived {
			deaths = 0
		}
		if deaths++; deaths >= maxDeaths {
			return fmt.Errorf("worker %d died %d times in a row: %w", c.slot, deaths, err)
		}
		l.Log.Error().Err(err).Int("slot", c.slot).Int("deaths", deaths).Msg("a worker died: starting another")
		select {
		case <-time.After(time.Duration(deaths) * 200 * time.Millisecond):
		case <-stop.Done():
		case <-ctx.Done():
		}
	}
}

// threads is how many cores each of so many workers uses.
func (l *Local) threads(workers int) int {
	if l.Threads > 0 {
		return l.Threads
	}
	return max(1, runtime.NumCPU()/workers)
}

// worker runs one worker process. It is its own process group, so that a Ctrl-C
// at the terminal reaches it through stop alone; it watches its stdin, which
// closes when this process ends in whatever way, and ends then.
func (l *Local) worker(stop, ctx context.Context, c command) error {
	args := []string{"--end-with-stdin", "--engine", string(c.engine), "--threads", strconv.Itoa(c.threads)}
	if c.engine == score.EngineCUDA {
		args = append(args, "--gpu", strconv.Itoa(c.slot))
	}
	args = append(args, l.Args...)
	if l.ArgsOf != nil {
		args = append(args, l.ArgsOf(c.slot)...)
	}
	cmd := exec.Command(c.bin, args...)
	// A config file and a server that are named for the dispatcher are not its workers'..
	cmd.Env = append(append(os.Environ(), "SURPRISAL_CONFIG=", "SURPRISAL_NATS="), c.env...)
	cmd.Stdout, cmd.Stderr = l.WorkerLog, l.WorkerLog
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	defer func() { _ = stdin.Close() }()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	// Signals to a process that has ended fail, which is what was wanted.
	defer context.AfterFunc(stop, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	return cmd.Wait()
}

// FindWorker finds the worker program.
func FindWorker(bin string) (string, error) {
	if bin != "" {
		if _, err := exec.LookPath(bin); err != nil {
			return "", usage.Errorf("--worker-bin: %w", err)
		}
		return bin, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "worker")
		if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() {
			return beside, nil
		}
	}
	if p, err := exec.LookPath("surprisal-worker"); err == nil {
		return p, nil
	}
	return "", usage.Errorf("no worker program beside this one nor surprisal-worker on PATH: build it with make build, or name it with --worker-bin")
}

// Engines is what `worker engines` prints.
type Engines struct {
	Engines []score.EngineKind `json:"engines"` // best first
	GPUs    []struct {
		Name string `json:"name"`
	} `json:"gpus"`
}

func (e Engines) Has(k score.EngineKind) bool {
	for _, h := range e.Engines {
		if h == k {
			return true
		}
	}
	return false
}

func (e Engines) best() score.EngineKind {
	if len(e.Engines) == 0 {
		return score.EngineCPU
	}
	return e.Engines[0]
}

// AskEngines asks the worker program what it and this machine have.
func AskEngines(ctx context.Context, bin string) (Engines, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, bin, "engines").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return Engines{}, usage.Errorf("%s does not run: %w", bin, err)
	}
	var e Engines
	if err := json.Unmarshal(out, &e); err != nil || len(e.Engines) == 0 {
		return e, usage.Errorf("%s is not a worker of this program: it printed %.80q", bin, out)
	}
	return e, nil
}
