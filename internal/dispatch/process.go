package dispatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/score"
)

// command is how to run one worker process.
type command struct {
	bin     string
	engine  score.EngineKind
	slot    int // the GPU's ordinal, with EngineCUDA
	threads int
	env     []string // how to reach the queue; a command line would show the token
}

const (
	maxDeaths  = 5                // in a row, after which a worker is not restarted
	shortLived = 30 * time.Second // a worker that ran for longer starts a new row
)

// WorkerFailure is a worker process that exited unexpectedly.
type WorkerFailure struct {
	Worker string `json:"worker"` // "GPU 1 (NVIDIA H200)", "CPU worker 0"
	Times  int    `json:"times"`
	Lost   bool   `json:"lost"`  // it was not restarted; the other workers took its jobs
	Error  string `json:"error"` // of the last time
}

// crew is the worker processes of a local run.
type crew struct {
	l        *Local
	names    []string // of workers, by number
	failures []WorkerFailure
}

func (l *Local) newCrew(names []string) *crew {
	w := &crew{l: l, names: names, failures: make([]WorkerFailure, len(names))}
	for i, name := range names {
		w.failures[i].Worker = name
	}
	return w
}

// run keeps the workers running until stop ends, then waits for them. A worker that
// keeps dying is lost; the run goes on while one is left.
func (w *crew) run(stop, ctx context.Context, c command) error {
	errs := make([]error, len(w.names))
	var g errgroup.Group
	for i := range w.names {
		one := c
		one.slot = i
		g.Go(func() error {
			errs[i] = w.supervise(stop, ctx, one)
			return nil
		})
	}
	_ = g.Wait() // each has its own error
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if slices.Contains(errs, nil) {
		return nil
	}
	return errs[0]
}

// failed lists the workers that exited unexpectedly. It is for after run.
func (w *crew) failed() (failed []WorkerFailure) {
	for _, f := range w.failures {
		if f.Times > 0 {
			failed = append(failed, f)
		}
	}
	return failed
}

// supervise keeps one worker process running until stop ends, then waits for it.
func (w *crew) supervise(stop, ctx context.Context, c command) error {
	name, log := w.names[c.slot], w.l.Log.With().Str("worker", w.names[c.slot]).Logger()
	f := &w.failures[c.slot] // this goroutine's own
	deaths := 0
	for {
		started := time.Now()
		err := w.l.worker(stop, ctx, c)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case stop.Err() != nil:
			if err != nil {
				log.Warn().Err(err).Msg("worker failed while draining")
			}
			return nil
		case err == nil:
			err = errors.New("worker exited unexpectedly")
		}
		f.Times++
		f.Error = err.Error()
		if time.Since(started) > shortLived {
			deaths = 0
		}
		deaths++
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit) && exit.ExitCode() == 2:
			err = errors.New("worker: wrong usage or environment, see its message above")
		case deaths >= maxDeaths:
			err = fmt.Errorf("worker %s died %d times in a row: %w", name, deaths, err)
		default:
			log.Error().Err(err).Int("deaths", deaths).Msg("worker died; restarting it")
			select {
			case <-time.After(time.Duration(deaths) * 200 * time.Millisecond):
			case <-stop.Done():
			case <-ctx.Done():
			}
			continue
		}
		f.Lost = true
		if len(w.names) > 1 {
			log.Error().Err(err).Msg("worker lost; the others continue")
		}
		return err
	}
}

// threads is how many cores each worker uses.
func (l *Local) threads(workers int) int {
	if l.Threads > 0 {
		return l.Threads
	}
	return max(1, runtime.NumCPU()/workers)
}

// worker runs one worker process in a process group of its own, so that a Ctrl-C at
// the terminal reaches it through stop alone. The worker exits when its stdin closes,
// which happens however this process ends.
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
	// A config file and a server that are named for the dispatcher are not its workers'.
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
	// Signals to a process that has exited fail, which is fine.
	defer context.AfterFunc(stop, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	return cmd.Wait()
}
