package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"surprisal/internal/jobs"
	"surprisal/internal/monitor"
)

func newDead(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead",
		Short: "Look at the dead letters: jobs that no worker takes again",
		Long: `Look at the dead letters: jobs that no worker takes again until they are submitted
anew. A letter tells the job, its last reason and how its attempts ended. It is kept
until the job is done after all.`,
		Example: `  dispatcher dead list --nats nats://queue:4222
  dispatcher dead show --nats nats://queue:4222 20261123-084512-k3f9ab 7kq2nm
  dispatcher dead export --nats nats://queue:4222 > dead.jsonl`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	list := &cobra.Command{
		Use: "list [RUN]", Short: "List the dead letters of a run, or of all runs", Args: cobra.MaximumNArgs(1),
		Example: "  dispatcher dead list --nats nats://queue:4222 20261123-084512-k3f9ab",
	}
	list.Flags().Bool("json", false, "print as JSON")
	list.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, _ := cmd.Flags().GetBool("json")
		letters, err := letters(cmd, l, args)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), letters)
		}
		return printLetters(cmd.OutOrStdout(), letters)
	}
	export := &cobra.Command{
		Use: "export [RUN]", Short: "Write the dead letters as JSON lines", Args: cobra.MaximumNArgs(1),
		Long:    "Write the dead letters as JSON lines: one object each, with the whole job message.",
		Example: "  dispatcher dead export --nats nats://queue:4222 20261123-084512-k3f9ab > dead.jsonl",
	}
	export.RunE = func(cmd *cobra.Command, args []string) error {
		letters, err := letters(cmd, l, args)
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
	show := &cobra.Command{
		Use: "show RUN JOB", Short: "Show one dead letter with its attempts", Args: cobra.ExactArgs(2),
		Long:    "Show one dead letter with its attempts. JOB is the job's id or the beginning of it.",
		Example: "  dispatcher dead show --nats nats://queue:4222 20261123-084512-k3f9ab 7kq2nm",
	}
	show.Flags().Bool("json", false, "print as JSON")
	show.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, _ := cmd.Flags().GetBool("json")
		all, err := letters(cmd, l, args[:1])
		if err != nil {
			return err
		}
		var found []jobs.DeadLetter
		for _, d := range all {
			if strings.HasPrefix(d.ID, args[1]) {
				found = append(found, d)
			}
		}
		if len(found) != 1 {
			return flagError{fmt.Errorf("%d dead letters of run %s are of a job %s: see dispatcher dead list %s", len(found), args[0], args[1], args[0])}
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), found[0])
		}
		return printLetter(cmd.OutOrStdout(), found[0])
	}
	for _, c := range []*cobra.Command{list, show, export} {
		natsFlags(c)
		cmd.AddCommand(c)
	}
	return cmd
}

// letters asks for the dead letters of the run that args name, or of all.
func letters(cmd *cobra.Command, l life, args []string) ([]jobs.DeadLetter, error) {
	client, _, err := onQueue(cmd)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	run := ""
	if len(args) > 0 {
		run = args[0]
	}
	return monitor.DeadLetters(l.drain, client, run)
}

// rowsOf says what a letter's job was to score.
func rowsOf(d jobs.DeadLetter) string {
	if d.Job == nil {
		return "(an unreadable message)"
	}
	return fmt.Sprintf("%s %d-%d", d.Job.Input.Rel, d.Job.First, d.Job.Last)
}

func printLetters(out io.Writer, letters []jobs.DeadLetter) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RUN\tJOB\tDIED\tATTEMPTS\tROWS\tREASON")
	for _, d := range letters {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", d.Run, d.ID, when(d.Time), d.Attempts, rowsOf(d), oneLine(d.Reason))
	}
	return w.Flush()
}

func printLetter(out io.Writer, d jobs.DeadLetter) error {
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
		by = "a dispatcher's finding"
	}
	line("died", "%s, %s", when(d.Time), by)
	line("reason", "%s", oneLine(d.Reason))
	line("attempts", "%d counted, %d deliveries", d.Attempts, d.Deliveries)
	for _, a := range d.History {
		line("attempt "+count(int64(a.Number)), "%s  %s on %s%s", when(a.Ended), a.Outcome, a.Worker, reason(a.Error))
	}
	return w.Flush()
}
