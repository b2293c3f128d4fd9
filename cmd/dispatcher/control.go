package main

import (
	"fmt"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// action does one thing to a run or a worker; message is what to print of it.
type action func(client *jobs.Client, log zerolog.Logger, name string) (result any, message string, err error)

// control is a command that does an action to each of its arguments.
func control(a *app, cmd cobra.Command, do action) *cobra.Command {
	c := &cmd
	c.Long = c.Short + ".\n\n" + c.Long
	c.Args = cobra.MinimumNArgs(1)
	q := newQueue(a, c)
	var asJSON bool
	c.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		client, log, err := q.open()
		if err != nil {
			return err
		}
		defer client.Close()
		results := []any{}
		for _, name := range args {
			res, message, err := do(client, log, name)
			if err != nil {
				return err
			}
			if results = append(results, res); !asJSON {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), message); err != nil {
					return err
				}
			}
		}
		if asJSON {
			return cli.PrintJSON(cmd.OutOrStdout(), results)
		}
		return nil
	}
	return c
}

func newPause(a *app) *cobra.Command {
	return control(a, cobra.Command{
		Use:   "pause RUN...",
		Short: "Stop handing out a run's jobs",
		Long: `Workers finish and commit the jobs that they have. The run stays paused through
restarts of everything, until dispatcher resume.`,
		Example: "  dispatcher pause 20261123-084512-k3f9ab",
	}, func(client *jobs.Client, _ zerolog.Logger, run string) (any, string, error) {
		return map[string]any{"run": run, "state": record.RunPaused}, run + " is paused",
			dispatch.Pause(a.Drain, client, run)
	})
}

func newCancel(a *app) *cobra.Command {
	var now bool
	cmd := control(a, cobra.Command{
		Use:   "cancel RUN...",
		Short: "Cancel a run and delete its jobs from the queue",
		Long: `Workers finish the jobs that they have; with --now they drop them and write nothing
more of the run. Committed scores stay; the same submit again, or dispatcher resume,
continues from there.`,
		Example: "  dispatcher cancel --now 20261123-084512-k3f9ab",
	}, func(client *jobs.Client, _ zerolog.Logger, run string) (any, string, error) {
		return map[string]any{"run": run, "state": record.RunCancelled}, run + " is cancelled", dispatch.Cancel(a.Drain,
			client, run, now)
	})
	cmd.Flags().BoolVar(&now, "now", false, "make workers drop the jobs of the run that they have")
	return cmd
}

func newDrain(a *app) *cobra.Command {
	return control(a, cobra.Command{
		Use:   "drain WORKER...",
		Short: "Make a worker finish its jobs and exit",
		Long: `Like SIGTERM to its process, from anywhere: the worker takes no more jobs, finishes
those it has, or gives them back after its --drain-timeout, and exits with 0.`,
		Example: "  dispatcher drain node7-4121-x2k9qd",
	}, func(client *jobs.Client, _ zerolog.Logger, worker string) (any, string, error) {
		return map[string]any{"worker": worker, "draining": true}, worker + " is draining",
			client.Drain(a.Drain, worker)
	})
}

func newRetry(a *app) *cobra.Command {
	var opt dispatch.RetryOptions
	cmd := control(a, cobra.Command{
		Use:   "retry RUN...",
		Short: "Requeue a run's dead jobs and plan its failed files again",
		Long: `Without --dead or --failed-files it does both. The history of earlier attempts is
kept. Only one dispatcher works on a run at a time; those that wait for the run keep
waiting.`,
		Example: `  dispatcher retry 20261123-084512-k3f9ab
  dispatcher retry --failed-files 20261123-084512-k3f9ab`,
	}, func(client *jobs.Client, log zerolog.Logger, run string) (any, string, error) {
		what := opt
		if !what.Dead && !what.FailedFiles {
			what = dispatch.RetryOptions{Dead: true, FailedFiles: true}
		}
		r, err := dispatch.Retry(a.Drain, client, run, what, dispatch.QueueOptions{}, log)
		if err != nil {
			return nil, "", err
		}
		message := fmt.Sprintf("%s: %d dead jobs requeued, %d failed files planned again (%d jobs)",
			run, r.DeadJobs, r.MendedFiles, r.NewJobs)
		if r.FailedFiles > 0 {
			message += fmt.Sprintf(", %d files still fail", r.FailedFiles)
		}
		return r, message, nil
	})
	mayQueue(cmd)
	cmd.Flags().BoolVar(&opt.Dead, "dead", false, "requeue dead jobs")
	cmd.Flags().BoolVar(&opt.FailedFiles, "failed-files", false, "plan failed files again")
	return cmd
}

func newResume(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resume RUN|OUT",
		Short: "Resume a paused run, or take over one whose dispatcher or queue is gone",
		Long: `Resume a paused run, or take over one whose dispatcher or queue is gone.

OUT's manifest and its committed files alone determine which jobs remain: those are
queued again, and no committed job is scored twice. Name OUT if the queue is a new
one; the run ID is enough while the queue still knows the run. Dead jobs stay dead:
dispatcher retry requeues those.`,
		Example: `  dispatcher resume 20261123-084512-k3f9ab
  dispatcher resume --wait /scores/fw`,
		Args: cobra.ExactArgs(1),
	}
	mayQueue(cmd)
	w, opt := waiting{q: newQueue(a, cmd)}, newQueueOptions(cmd)
	var wait bool
	cmd.Flags().BoolVar(&wait, "wait", false, "then watch the run to its end, as dispatcher wait does")
	w.metrics.Flags(cmd.Flags())
	cmd.Flags().BoolVar(&w.asJSON, "json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := resume(w.q, args[0], opt.options())
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		switch {
		case wait:
			return w.wait(out, r.Run)
		case w.asJSON:
			return cli.PrintJSON(out, r)
		case r.WasPaused:
			_, err = fmt.Fprintf(out, "%s is resumed\n", r.Run)
		default:
			_, err = fmt.Fprintf(out, "%s: %s of %s jobs are committed, %s are queued, %s are dead\n", r.Run,
				cli.Count(r.Committed), cli.Count(r.Jobs), cli.Count(r.Queued), cli.Count(r.Dead))
		}
		return err
	}
	return cmd
}

func resume(q *queue, name string, opt dispatch.QueueOptions) (*dispatch.Resumed, error) {
	client, log, err := q.open()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	run := ""
	if score.ValidRunID(name) {
		run = name
	}
	if err := cli.Resolve("", &name); err != nil {
		return nil, err
	}
	return dispatch.Resume(q.app.Drain, client, name, run, opt, log)
}
