package dispatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"surprisal/internal/score"
	"syscall"
	"time"
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

// supervise keeps one worker process running until stop ends, then waits for it.
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
				l.Log.Warn().Err(err).Int("slot", c.slot).Msg("worker failed while draining")
			}
			return nil
		case err == nil:
			err = errors.New("worker exited unexpectedly")
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 2 {
			return errors.New("worker: wrong usage or environment, see its message above")
		}
		if time.Since(started) > shortLived {
			deaths = 0
		}
		if deaths++; deaths >= maxDeaths {
			return fmt.Errorf("worker %d died %d times in a row: %w", c.slot, deaths, err)
		}
		l.Log.Error().Err(err).Int("slot", c.slot).Int("deaths", deaths).Msg("worker died; restarting it")
		select {
		case <-time.After(time.Duration(deaths) * 200 * time.Millisecond):
		case <-stop.Done():
		case <-ctx.Done():
		}
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
	// Signals to a process that has exited fail, which is fine.
	defer context.AfterFunc(stop, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	return cmd.Wait()
}
