// Command dispatcher plans, queues and watches the scoring of parquet corpora.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/usage"
)

// version is stamped by the build.
var version = "dev"

// Exit codes, as documented in the help.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// errUnfinished: the run ended with dead jobs or failed files. All is said by then.
var errUnfinished = errors.New("not everything could be scored")

func main() { os.Exit(run(os.Args[1:])) }

// life is what ends a command: drain at the first signal, ctx at the second.
type life struct{ drain, ctx context.Context }

func run(args []string) int {
	traced, end, err := trace(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return exitUsage
	}
	ctx, abort := context.WithCancel(traced)
	defer abort()
	drain, stop := context.WithCancel(ctx)
	defer stop()
	signals := make(chan os.Signal, 2) // one to drain, one to abort
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() { // lives as long as the process
		<-signals
		stop()
		<-signals
		abort()
	}()
	root := newRoot(life{drain, ctx})
	root.SetArgs(args)
	err = root.ExecuteContext(ctx)
	end(err)
	code := exitCode(err)
	switch {
	case err == nil || errors.Is(err, errUnfinished):
	case code == exitInterrupted:
		if !errors.Is(err, dispatch.ErrInterrupted) {
			fmt.Fprintln(os.Stderr, "interrupted")
		}
	default:
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	return code
}

func exitCode(err error) int {
	var use *usage.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &use), errors.As(err, new(flagError)),
		errors.Is(err, conn.ErrUnreachable), errors.Is(err, conn.ErrAuth), errors.Is(err, conn.ErrConfig),
		errors.Is(err, conn.ErrTLS), errors.Is(err, conn.ErrDenied), errors.Is(err, jobs.ErrNoRun),
		errors.Is(err, jobs.ErrNoWorker), errors.Is(err, jobs.ErrHeld), errors.Is(err, jobs.ErrDrift):
		return exitUsage
	case errors.Is(err, dispatch.ErrInterrupted), errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailed
}

// flagError is cobra's complaint about flags or arguments.
type flagError struct{ error }

func (e flagError) Unwrap() error { return e.error }

func newRoot(l life) *cobra.Command {
	root := &cobra.Command{
		Use:   "dispatcher",
		Short: "Score every document of a parquet corpus with a language model",
		Long: `Score every document of a parquet corpus with a language model.

Run everything on this machine:
  dispatcher run --model DIR --out DIR INPUT...
Or queue it for a cluster's workers:
  dispatcher submit --nats URL --model DIR --out DIR INPUT...
  dispatcher wait --nats URL RUN

Every flag can be set in a config file (--config FILE, or ./surprisal.yaml) as
its name, and in the environment as SURPRISAL_<NAME>, dashes as underscores.

Exit codes: 0 all scored; 1 finished, but jobs are dead or files failed; 2 wrong
usage or input; 130 interrupted.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		meant := ""
		if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
			meant = fmt.Sprintf(", did you mean %q?", s[0])
		}
		return fmt.Errorf("there is no command %q%s", args[0], meant)
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.PersistentFlags().String("config", "", "config file: YAML, TOML or JSON (default ./surprisal.yaml if it is there)")
	root.PersistentFlags().String("log-format", "auto", "auto, console or json; auto: console at a terminal")
	root.PersistentFlags().String("log-level", "", "debug, info, warn or error (default info; warn where a bar is drawn)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError{err} })
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return loadConfig(cmd) }
	root.AddCommand(newRun(l), newSubmit(l), newWait(l), newStatus(l), newList(l), newPlan(l), newVerify(l),
		newJobs(l), newJob(l), newDead(l), newWorkers(l),
		newPause(l), newResume(l), newCancel(l), newRetry(l), newDrain(l), newServe(l), newTop(l))
	root.AddCommand(newFilter(l), newBucket(l), newExport(l), newReport(l), newInspect(l))
	root.AddCommand(newGC(l), newDoctor(l))
	markArgs(root)
	return root
}

// markArgs has each command's complaints about its arguments say where to look.
func markArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return flagError{fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		markArgs(sub)
	}
}
