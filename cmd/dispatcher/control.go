package main

import (
	"fmt"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
)

// control is a command that does one thing to a run or a worker and says so.
func control(use, short, long, example string, do func(cmd *cobra.Command, client *jobs.Client, log zerolog.Logger, name string) (any, string, error)) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: short + ".\n\n" + long, Example: example, Args: cobra.MinimumNArgs(1)}
	natsFlags(cmd)
	cmd.Flags().Bool("json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, _ := cmd.Flags().GetBool("json") // made above
		client, log, err := onQueue(cmd)
		if err != nil {
			return err
		}
		defer client.Close()
		results := []any{}
		for _, name := range args {
			res, said, err := do(cmd, client, log, name)
			if err != nil {
				return err
			}
			if results = append(results, res); !asJSON {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), said); err != nil {
					return err
				}
			}
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), results)
		}
		return nil
	}
	return cmd
}

func newPause(l life) *cobra.Command {
	return control("pause RUN...", "Have the workers take no more jobs of a run",
		`Jobs in workers' hands are finished and committed. The run stays paused through
restarts of everything, until dispatcher resume.`,
		"  dispatcher pause 20261123-084512-k3f9ab",
		func(_ *cobra.Command, client *jobs.Client, _ zerolog.Logger, run string) (any, string, error) {
			return map[string]any{"run": run, "state": jobs.RunPaused}, run + " is paused", dispatch.Pause(l.drain, client, run)
		})
}

func newCancel(l life) *cobra.Command {
	cmd := control("cancel RUN...", "End a run: its jobs leave the queue",
		`Workers finish the jobs they hold; with --now they drop them and write nothing
more of the run. What is committed stays; the same submit again, or dispatcher
resume, goes on from there.`,
		"  dispatcher cancel --now 20261123-084512-k3f9ab",
		func(cmd *cobra.Command, client *jobs.Client, _ zerolog.Logger, run string) (any, string, error) {
			now, _ := cmd.Flags().GetBool("now") // made below
			return map[string]any{"run": run, "state": jobs.RunCancelled}, run + " is cancelled", dispatch.Cancel(l.drain, client, run, now)
		})
	cmd.Flags().Bool("now", false, "have workers drop the jobs they hold of it")
	return cmd
}

func newDrain(l life) *cobra.Command {
	return control("drain WORKER...", "Have a worker finish what it holds and end",
		`As SIGTERM to its process does, from anywhere: it takes no more jobs, finishes
those in hand, or gives them back after its --drain-timeout, and exits with 0.`,
		"  dispatcher drain node7-4121-x2k9qd",
		func(_ *cobra.Command, client *jobs.Client, _ zerolog.Logger, worker string) (any, string, error) {
			return map[string]any{"worker": worker, "draining": true}, worker + " drains", client.Drain(l.drain, worker)
		})
}

func newRetry(l life) *cobra.Command {
	cmd := control("retry RUN...", "Queue a run's dead jobs again and plan its failed files again",
		`Without --dead or --failed-files it does both. What is on record of the attempts
so far is kept. Only one dispatcher works on a run at a time; those that wait for
it go on waiting.`,
		`  dispatcher retry 20261123-084512-k3f9ab
  dispatcher retry --failed-files 20261123-084512-k3f9ab`,
		func(cmd *cobra.Command, client *jobs.Client, log zerolog.Logger, run string) (any, string, error) {
			dead, _ := cmd.Flags().GetBool("dead") // made below
			files, _ := cmd.Flags().GetBool("failed-files")
			if !dead && !files {
				dead, files = true, true
			}
			r, err := dispatch.Retry(l.drain, client, run, dispatch.RetryOptions{Dead: dead, FailedFiles: files}, dispatch.QueueOptions{}, log)
			if err != nil {
				return nil, "", err
			}
			said := fmt.Sprintf("%s: %d dead jobs queued again, %d files mended (%d jobs)", run, r.DeadJobs, r.MendedFiles, r.NewJobs)
			if r.FailedFiles > 0 {
				said += fmt.Sprintf(", %d files still fail", r.FailedFiles)
			}
			return r, said, nil
		})
	cmd.Flags().Bool("dead", false, "queue dead jobs again")
	cmd.Flags().Bool("failed-files", false, "plan files again that could not be planned")
	return cmd
}

func newResume(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resume RUN|OUT",
		Short: "Let a paused run go on, or take over one whose dispatcher or queue is gone",
		Long: `Let a paused run go on, or take over one whose dispatcher or queue is gone.

OUT's manifest and its committed files alone say what is left to do: that is
queued again, and no committed job is scored twice. Name OUT where the queue is
a new one; the run's id is enough where the queue still knows it. Dead jobs stay
dead: dispatcher retry queues those.`,
		Example: `  dispatcher resume 20261123-084512-k3f9ab
  dispatcher resume --wait /scores/fw`,
		Args: cobra.ExactArgs(1),
	}
	natsFlags(cmd)
	queueFlags(cmd)
	cmd.Flags().Bool("wait", false, "then watch it to its end, as dispatcher wait does")
	metricsFlags(cmd)
	cmd.Flags().Bool("json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, _ := cmd.Flags().GetBool("json") // made above
		wait, _ := cmd.Flags().GetBool("wait")
		r, err := resume(cmd, l, args[0])
		if err != nil {
			return err
		}
		switch {
		case wait:
			return waitFor(cmd, l, r.Run)
		case asJSON:
			return printJSON(cmd.OutOrStdout(), r)
		case r.Unpaused:
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s goes on\n", r.Run)
		default:
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s of %s jobs are committed, %s are queued, %s are dead\n", r.Run,
				count(int64(r.Committed)), count(int64(r.Jobs)), count(int64(r.Queued)), count(int64(r.Dead)))
		}
		return err
	}
	return cmd
}

func resume(cmd *cobra.Command, l life, target string) (*dispatch.Resumed, error) {
	client, log, err := onQueue(cmd)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return dispatch.Resume(l.drain, client, target, queueOptions(cmd), log)
}
