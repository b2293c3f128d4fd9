// Command dispatcher plans, queues and watches the scoring of a corpus.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/curate/where"
	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/traces"
	"surprisal/internal/usage"
)

// version is stamped by the build.
var version = "dev"

// errUnfinished: dead jobs, failed files or findings remain. They have been printed.
var errUnfinished = errors.New("not everything could be scored")

// app is what all commands share: how long they may go on, and the log flags.
type app struct {
	cli.Life
	log cli.Log
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	traced, end, err := trace(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return cli.ExitUsage
	}
	life, stop := cli.Begin(traced)
	defer stop()
	root := newRoot(&app{Life: life})
	root.SetArgs(args)
	err = root.ExecuteContext(life.Abort)
	end(err)
	code := exitCode(err)
	switch {
	case err == nil || errors.Is(err, errUnfinished):
	case code == cli.ExitInterrupted:
		if !errors.Is(err, dispatch.ErrInterrupted) {
			fmt.Fprintln(os.Stderr, "interrupted")
		}
	default:
		fmt.Fprintln(os.Stderr, "error:", err)
		var expr *where.Error
		if errors.As(err, &expr) {
			fmt.Fprintln(os.Stderr, expr.Caret())
		}
	}
	return code
}

func exitCode(err error) int {
	code := cli.Code(err, conn.ErrUnreachable, jobs.ErrNoRun, jobs.ErrNoWorker, jobs.ErrHeld, jobs.ErrDrift)
	if code == cli.ExitFailed && errors.Is(err, dispatch.ErrInterrupted) {
		return cli.ExitInterrupted
	}
	return code
}

// trace begins the span of a command that may queue jobs, where the OTEL_* variables
// name a collector; end sends it.
func trace(args []string) (_ context.Context, end func(error), _ error) {
	ctx := context.Background()
	cmd, _, err := newRoot(&app{}).Find(args)
	if err != nil || cmd.Annotations[traced] == "" {
		return ctx, func(error) {}, nil // a wrong command is reported later
	}
	t, err := traces.New(ctx, "surprisal-dispatcher", version, zerolog.New(os.Stderr).With().Timestamp().Logger())
	if err != nil {
		return nil, nil, err
	}
	ctx, over := t.Run(ctx, cmd.Name())
	return ctx, func(err error) { over(err); t.Close() }, nil
}

// traced annotates commands that may queue jobs.
const traced = "traced"

func mayQueue(cmd *cobra.Command) { cmd.Annotations = map[string]string{traced: "yes"} }

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "dispatcher",
		Short: "Score every document of a corpus with a language model",
		Long: `Score every document of a corpus with a language model.

Run everything on this machine:
  dispatcher run --model DIR --out DIR INPUT...
Or queue it for the workers of a cluster:
  dispatcher submit --nats URL --model DIR --out DIR INPUT...
  dispatcher wait --nats URL RUN

Every flag can also be set in a config file (--config FILE, or ./surprisal.yaml),
under its name, and in the environment as SURPRISAL_<NAME>, dashes as underscores.
The command line wins over the environment, and the environment over the file.

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
		return fmt.Errorf("unknown command %q%s", args[0], meant)
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cli.ConfigFlag(root.PersistentFlags())
	a.log.Flags(root.PersistentFlags(), "default info; warn where a progress bar is drawn")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usage.Error{Err: err} })
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return cli.Load(cmd, cli.WorkerFlags()) }
	for _, command := range []func(*app) *cobra.Command{
		newRun, newSubmit, newWait, newStatus, newList, newPlan, newVerify,
		newJobs, newJob, newDead, newWorkers,
		newPause, newResume, newCancel, newRetry, newDrain, newServe, newTop,
		newFilter, newBucket, newExport, newReport, newInspect,
		newGC, newDoctor,
	} {
		root.AddCommand(command(a))
	}
	markArgs(root)
	return root
}

// markArgs makes errors about a command's arguments end with where its help is.
func markArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usage.Errorf("%w: see %s --help", err, cmd.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		markArgs(sub)
	}
}
