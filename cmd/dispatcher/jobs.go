package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/jobs/record"
	"surprisal/internal/monitor"
	"surprisal/internal/usage"
)

func newJobs(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs RUN|OUT",
		Short: "List a run's jobs",
		Long: `List a run's jobs: first those that a worker has had, in the order of their last
change, then the committed and the queued ones, in the order of the manifest in the
output folder. Of an output folder without --nats, it shows which jobs are committed.

States: queued (no worker has had it), running, waiting (given back by a worker that
exited), failed (to be retried), done, dead.

--json prints one object per line. A million jobs take a few dozen megabytes.`,
		Example: `  dispatcher jobs --nats nats://queue:4222 20261123-084512-k3f9ab --state dead --state failed
  dispatcher jobs scores --state queued --limit 10`,
		Args: cobra.ExactArgs(1),
	}
	var (
		states []string
		limit  int
		asJSON bool
	)
	q := newQueue(a, cmd)
	f := cmd.Flags()
	f.StringSliceVar(&states, "state", nil, "only jobs in this state; may be repeated")
	f.IntVar(&limit, "limit", 0, "list at most this many")
	f.BoolVar(&asJSON, "json", false, "print as JSON, one object per line")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if limit < 0 {
			return usage.Errorf("--limit %d: must not be negative", limit)
		}
		t, err := q.find(args[0])
		if err != nil {
			return err
		}
		defer t.close()
		req := monitor.ListRequest{Out: t.out, Run: t.run, Client: t.client, Limit: limit}
		for _, s := range states {
			req.States = append(req.States, record.State(s))
		}
		w := bufio.NewWriter(cmd.OutOrStdout())
		show := func(j monitor.JobLine) error { return printJobLine(w, j) }
		if asJSON {
			enc := json.NewEncoder(w)
			enc.SetEscapeHTML(false)
			show = func(j monitor.JobLine) error { return enc.Encode(j) }
		} else {
			fmt.Fprintf(w, "%-26s  %-7s  %7s  %-19s  %s\n", "JOB", "STATE", "ATTEMPT", "CHANGED", "ROWS")
		}
		more, err := monitor.ListJobs(a.Drain, req, show)
		if more && !asJSON {
			fmt.Fprintf(w, "more jobs are not shown: --limit %d\n", limit)
		}
		if ferr := w.Flush(); err == nil {
			err = ferr
		}
		return err
	}
	return cmd
}

// printJobLine prints columns of fixed width: a list may be too long to measure.
func printJobLine(w io.Writer, j monitor.JobLine) error {
	attempt, changed, rows := "-", "-", "(the output folder's manifest cannot be read here)"
	if j.Attempt > 0 {
		attempt = cli.Count(j.Attempt)
	}
	if !j.Updated.IsZero() {
		changed = cli.When(j.Updated)
	}
	if j.File != "" {
		rows = fmt.Sprintf("%s %d-%d", j.File, j.First, j.Last)
	}
	more := ""
	if j.Worker != "" && (j.State == record.StateRunning || j.State == record.StateFailed) {
		more += "  " + j.Worker
	}
	if j.Error != "" {
		more += "  " + cli.OneLine(j.Error)
	}
	_, err := fmt.Fprintf(w, "%-26s  %-7s  %7s  %-19s  %s%s\n", j.Job, j.State, attempt, changed, rows, more)
	return err
}

func newJob(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "job RUN|OUT JOB",
		Short: "Show one job: rows, attempts, output",
		Long: `Show one job: its file and rows, its state, each attempt with worker, times and
error, its dead letter, and whether its score file exists. JOB is the job ID or its
beginning.`,
		Example: `  dispatcher job --nats nats://queue:4222 20261123-084512-k3f9ab 7kq2nm
  dispatcher job scores 7kq2nm --json`,
		Args: cobra.ExactArgs(2),
	}
	q := newQueue(a, cmd)
	var asJSON bool
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := q.find(args[0])
		if err != nil {
			return err
		}
		defer t.close()
		d, err := monitor.GetJob(a.Drain, t.client, t.out, t.run, args[1])
		if err != nil {
			return err
		}
		if asJSON {
			return cli.PrintJSON(cmd.OutOrStdout(), d)
		}
		return printJob(cmd.OutOrStdout(), d)
	}
	return cmd
}

func printJob(out io.Writer, d *monitor.JobDetail) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, a ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	line("job", "%s of run %s", d.Job, d.Run)
	line("state", "%s", d.State)
	if d.File != "" {
		line("rows", "%d-%d of %s", d.First, d.Last, d.Input)
		line("output", "%s", d.Output)
	}
	there := d.There
	if d.Digest != "" {
		there += fmt.Sprintf(": %s documents, %s tokens, %s failed rows", cli.Count(d.Documents), cli.Count(d.Tokens),
			cli.Count(d.Failed))
	}
	line("there", "%s", cli.OneLine(there))
	if !d.Queued.IsZero() {
		line("queued", "%s", cli.When(d.Queued))
	}
	if r := d.Record; r != nil {
		line("changed", "%s, attempt %d by %s", cli.When(r.Updated), r.Attempt, r.Worker)
		if r.State == record.StateRunning {
			line("running", "for %s", time.Since(r.Started).Round(time.Second))
		}
		if r.Error != "" {
			line("error", "%s", cli.OneLine(r.Error))
		}
		for _, a := range r.History {
			line(fmt.Sprintf("attempt %d", a.Number), "%s  %s  %s on %s%s", cli.When(a.Ended),
				a.Ended.Sub(a.Started).Round(time.Millisecond), a.Outcome, a.Worker, reason(a.Error))
		}
	}
	if letter := d.Letter; letter != nil {
		line("dead letter", "%s%s", cli.When(letter.Time), reason(letter.Reason))
		if d.State != record.StateDead {
			line("", "it has been requeued since")
		}
	}
	return w.Flush()
}
