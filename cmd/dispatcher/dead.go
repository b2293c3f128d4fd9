package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/jobs/record"
	"surprisal/internal/monitor"
	"surprisal/internal/usage"
)

func newDead(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead",
		Short: "Inspect dead letters: jobs that are not retried",
		Long: `Inspect dead letters: jobs that no worker takes again until they are requeued. A dead
letter holds the job, its last error and the outcome of its attempts. It is kept until
the job is done.`,
		Example: `  dispatcher dead list --nats nats://queue:4222
  dispatcher dead show --nats nats://queue:4222 20261123-084512-k3f9ab 7kq2nm
  dispatcher dead export --nats nats://queue:4222 > dead.jsonl`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(newDeadList(a), newDeadShow(a), newDeadExport(a))
	return cmd
}

func newDeadList(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list [RUN]", Short: "List the dead letters of a run, or of all runs", Args: cobra.MaximumNArgs(1),
		Example: "  dispatcher dead list --nats nats://queue:4222 20261123-084512-k3f9ab",
	}
	q := newQueue(a, cmd)
	var asJSON bool
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		letters, err := letters(q, args)
		if err != nil {
			return err
		}
		if asJSON {
			return cli.PrintJSON(cmd.OutOrStdout(), letters)
		}
		return printLetters(cmd.OutOrStdout(), letters)
	}
	return cmd
}

func newDeadExport(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "export [RUN]", Short: "Write the dead letters as JSON lines", Args: cobra.MaximumNArgs(1),
		Long:    "Write the dead letters as JSON lines: one object each, with the whole job message.",
		Example: "  dispatcher dead export --nats nats://queue:4222 20261123-084512-k3f9ab > dead.jsonl",
	}
	q := newQueue(a, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		letters, err := letters(q, args)
		if err != nil {
			return err
		}
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetEscapeHTML(false)
		for _, d := range letters {
			if err := enc.Encode(d); err != nil {
				return fmt.Errorf("write dead letters: %w", err)
			}
		}
		return nil
	}
	return cmd
}

func newDeadShow(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show RUN JOB", Short: "Show one dead letter with its attempts", Args: cobra.ExactArgs(2),
		Long:    "Show one dead letter with its attempts. JOB is the job ID or its beginning.",
		Example: "  dispatcher dead show --nats nats://queue:4222 20261123-084512-k3f9ab 7kq2nm",
	}
	q := newQueue(a, cmd)
	var asJSON bool
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		run, job := args[0], args[1]
		all, err := letters(q, args[:1])
		if err != nil {
			return err
		}
		var found []record.DeadLetter
		for _, d := range all {
			if strings.HasPrefix(d.ID, job) {
				found = append(found, d)
			}
		}
		if len(found) != 1 {
			return usage.Errorf("%d dead letters of run %s match job %s: see dispatcher dead list %s", len(found), run,
				job, run)
		}
		if asJSON {
			return cli.PrintJSON(cmd.OutOrStdout(), found[0])
		}
		return printLetter(cmd.OutOrStdout(), found[0])
	}
	return cmd
}

// letters asks for the dead letters of the run that args name, or of all.
func letters(q *queue, args []string) ([]record.DeadLetter, error) {
	client, _, err := q.open()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	run := ""
	if len(args) > 0 {
		run = args[0]
	}
	return monitor.DeadLetters(q.app.Drain, client, run)
}

// rowsOf names the rows of a letter's job.
func rowsOf(d record.DeadLetter) string {
	if d.Job == nil {
		return "(unreadable message)"
	}
	return fmt.Sprintf("%s %d-%d", d.Job.Input.Rel, d.Job.First, d.Job.Last)
}

func printLetters(out io.Writer, letters []record.DeadLetter) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RUN\tJOB\tDIED\tATTEMPTS\tROWS\tREASON")
	for _, d := range letters {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", d.Run, d.ID, cli.When(d.Time), d.Attempts, rowsOf(d),
			cli.OneLine(d.Reason))
	}
	return w.Flush()
}

func printLetter(out io.Writer, d record.DeadLetter) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, a ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	line("job", "%s of run %s", d.ID, d.Run)
	line("rows", "%s", rowsOf(d))
	if d.Job != nil {
		line("input", "%s", d.Job.Input.Path)
		line("output", "%s/%s", d.Job.Out, d.Job.Output)
	} else if len(d.Raw) > 0 {
		line("message", "%.200q", d.Raw)
	}
	by := d.Worker
	if by == "" {
		by = "found by a dispatcher"
	}
	line("died", "%s, %s", cli.When(d.Time), by)
	line("reason", "%s", cli.OneLine(d.Reason))
	line("attempts", "%d counted, %d deliveries", d.Attempts, d.Deliveries)
	for _, a := range d.History {
		line(fmt.Sprintf("attempt %d", a.Number), "%s  %s on %s%s", cli.When(a.Ended), a.Outcome, a.Worker,
			reason(a.Error))
	}
	return w.Flush()
}

func reason(s string) string {
	if s == "" {
		return ""
	}
	return ": " + cli.OneLine(s)
}
