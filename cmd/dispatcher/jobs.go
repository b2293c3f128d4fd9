package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"surprisal/internal/jobs"
	"surprisal/internal/monitor"
	"surprisal/internal/place"
	"surprisal/internal/score"
)

func newJobs(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs RUN|OUT",
		Short: "List a run's jobs",
		Long: `List a run's jobs: those that a worker has had in the order of their last change,
then the committed and the queued ones as the manifest in the output folder has them.
Of an output folder alone, without --nats, it tells what is committed.

States: queued (no worker has had it), running, waiting (given back by a worker that
ended), failed (to be tried again), done, dead.

--json prints one object a line. A million jobs take a few dozen megabytes.`,
		Example: `  dispatcher jobs --nats nats://queue:4222 20261123-084512-k3f9ab --state dead --state failed
  dispatcher jobs scores --state queued --limit 10`,
		Args: cobra.ExactArgs(1),
	}
	natsFlags(cmd)
	f := cmd.Flags()
	f.StringSlice("state", nil, "only jobs in this state; may be given several times")
	f.Int("limit", 0, "list so many at most")
	f.Bool("json", false, "print as JSON, one object a line")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		names, _ := f.GetStringSlice("state") // made above
		limit, _ := f.GetInt("limit")
		asJSON, _ := f.GetBool("json")
		if limit < 0 {
			return flagError{fmt.Errorf("--limit %d is negative", limit)}
		}
		t, err := newTarget(cmd, l, args[0])
		if err != nil {
			return err
		}
		defer t.close()
		req := monitor.ListRequest{Out: t.out, Run: t.run, Client: t.client, Limit: limit}
		for _, n := range names {
			req.States = append(req.States, jobs.State(n))
		}
		w := bufio.NewWriter(cmd.OutOrStdout())
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		if !asJSON {
			fmt.Fprintf(w, "%-26s  %-7s  %7s  %-19s  %s\n", "JOB", "STATE", "ATTEMPT", "CHANGED", "ROWS")
		}
		more, err := monitor.ListJobs(l.drain, req, func(j monitor.JobLine) error {
			if asJSON {
				return enc.Encode(j)
			}
			return printJobLine(w, j)
		})
		if more && !asJSON {
			fmt.Fprintf(w, "there are more: --limit %d\n", limit)
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
	attempt, changed, rows := "-", "-", "(the output folder's manifest is not to be read here)"
	if j.Attempt > 0 {
		attempt = count(int64(j.Attempt))
	}
	if !j.Updated.IsZero() {
		changed = when(j.Updated)
	}
	if j.File != "" {
		rows = fmt.Sprintf("%s %d-%d", j.File, j.First, j.Last)
	}
	more := ""
	if j.Worker != "" && (j.State == jobs.StateRunning || j.State == jobs.StateFailed) {
		more += "  " + j.Worker
	}
	if j.Error != "" {
		more += "  " + oneLine(j.Error)
	}
	_, err := fmt.Fprintf(w, "%-26s  %-7s  %7s  %-19s  %s%s\n", j.Job, j.State, attempt, changed, rows, more)
	return err
}

// when writes a time for people.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

func newJob(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "job RUN|OUT JOB",
		Short: "Show all that is known of one job: rows, attempts, output",
		Long: `Show all that is known of one job: its file and rows, its state, each attempt with
worker, times and error, its dead letter, and whether its score file is there. JOB is
its id or the beginning of it.`,
		Example: `  dispatcher job --nats nats://queue:4222 20261123-084512-k3f9ab 7kq2nm
  dispatcher job scores 7kq2nm --json`,
		Args: cobra.ExactArgs(2),
	}
	natsFlags(cmd)
	cmd.Flags().Bool("json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, _ := cmd.Flags().GetBool("json")
		t, err := newTarget(cmd, l, args[0])
		if err != nil {
			return err
		}
		defer t.close()
		d, err := monitor.GetJob(l.drain, t.client, t.out, t.run, args[1])
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), d)
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
		there += fmt.Sprintf(": %s documents, %s tokens, %s failed rows", count(d.Documents), count(d.Tokens), count(d.Failed))
	}
	line("there", "%s", oneLine(there))
	if !d.Queued.IsZero() {
		line("queued", "%s", when(d.Queued))
	}
	if r := d.Record; r != nil {
		line("changed", "%s, attempt %d by %s", when(r.Updated), r.Attempt, r.Worker)
		if r.State == jobs.StateRunning {
			line("running", "for %s", time.Since(r.Started).Round(time.Second))
		}
		if r.Error != "" {
			line("error", "%s", oneLine(r.Error))
		}
		for _, a := range r.History {
			line("attempt "+count(int64(a.Number)), "%s  %s  %s on %s%s", when(a.Ended), a.Ended.Sub(a.Started).Round(time.Millisecond), a.Outcome, a.Worker, reason(a.Error))
		}
	}
	if letter := d.Letter; letter != nil {
		line("dead letter", "%s%s", when(letter.Time), reason(letter.Reason))
		if d.State != jobs.StateDead {
			line("", "it was submitted again since")
		}
	}
	return w.Flush()
}

func reason(s string) string {
	if s == "" {
		return ""
	}
	return ": " + oneLine(s)
}

// targetRun is what a RUN|OUT argument names.
type targetRun struct {
	out, run string
	client   *jobs.Client // nil without a server
}

func (t *targetRun) close() {
	if t.client != nil {
		t.client.Close()
	}
}

// newTarget finds the output folder that arg names, itself or as a run of the
// NATS server, and the server if one is named or needed. run is empty for a
// folder.
func newTarget(cmd *cobra.Command, l life, arg string) (*targetRun, error) {
	log, _, _, err := logger(cmd, os.Stderr, os.Stderr, true)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(arg)
	folder := err == nil && st.IsDir() || place.IsURL(arg)
	if url, _ := cmd.Flags().GetString("nats"); folder && url == "" {
		return &targetRun{out: arg}, nil
	}
	if !folder && !score.ValidRunID(arg) {
		return nil, flagError{fmt.Errorf("%s is no folder and no run's id", arg)}
	}
	client, err := connect(cmd, log)
	if err != nil {
		if !folder && errors.Is(err, errNoNATS) {
			err = flagError{fmt.Errorf("%s is no folder here; if it is a run's id, give --nats URL", arg)}
		}
		return nil, err
	}
	t := &targetRun{out: arg, client: client}
	if folder {
		return t, nil
	}
	r, err := client.Run(l.drain, arg)
	if err != nil {
		client.Close()
		return nil, err
	}
	t.out, t.run = r.Out, r.ID
	return t, nil
}

// newServer is the NATS server alone.
func newServer(cmd *cobra.Command) (*targetRun, error) {
	client, _, err := onQueue(cmd)
	if err != nil {
		return nil, err
	}
	return &targetRun{client: client}, nil
}
