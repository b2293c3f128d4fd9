package main

import (
	"fmt"
	"io"
	"math"
	"sort"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/jobs/record"
	"surprisal/internal/monitor"
)

func newList(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the runs of a NATS server",
		Example: "  dispatcher list --nats nats://queue:4222 --json",
		Args:    cobra.NoArgs,
	}
	q := newQueue(a, cmd)
	var asJSON bool
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, _, err := q.open()
		if err != nil {
			return err
		}
		defer client.Close()
		runs, err := monitor.ListRuns(a.Drain, client)
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if asJSON {
			return cli.PrintJSON(w, runs)
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "RUN\tSTATE\tJOBS\tDEAD\tDONE\tTOKENS/S\tLEFT\tROWS\tCREATED\tOUT")
		for _, r := range runs {
			p := r.Pace
			fmt.Fprintf(t, "%s\t%s\t%s/%s\t%s\t%.0f %%\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.State, cli.Count(p.Done),
				cli.Count(p.Total),
				cli.Count(r.Dead), math.Floor(p.Percent), cli.Count(int64(p.TokensPerSec)), left(p), cli.Count(r.Rows),
				r.Created, r.Out)
		}
		return t.Flush()
	}
	return cmd
}

// left is the remaining time of a run.
func left(p monitor.Pace) string {
	if p.Left == nil {
		return "-"
	}
	return time.Duration(*p.Left * float64(time.Second)).String()
}

func newStatus(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [RUN]",
		Short: "Show the state of one run or of all, the queue and the workers",
		Example: `  dispatcher status --nats nats://queue:4222
  dispatcher status --nats nats://queue:4222 20261123-084512-k3f9ab --json`,
		Args: cobra.MaximumNArgs(1),
	}
	q := newQueue(a, cmd)
	var asJSON bool
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, _, err := q.open()
		if err != nil {
			return err
		}
		defer client.Close()
		run := ""
		if len(args) == 1 {
			run = args[0]
		}
		st, err := monitor.GetStatus(a.Drain, client, run)
		if err != nil {
			return err
		}
		if asJSON {
			return cli.PrintJSON(cmd.OutOrStdout(), st)
		}
		return printStatus(cmd.OutOrStdout(), st)
	}
	return cmd
}

func printStatus(w io.Writer, st *monitor.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := range st.Runs {
		printRun(t, &st.Runs[i])
	}
	q := st.Queue
	fmt.Fprintf(t, "queue\t%s jobs: %s waiting, %s in hand or delayed", cli.Count(int64(q.Messages)),
		cli.Count(int64(q.Pending)),
		cli.Count(int64(q.AckPending)))
	if !q.Oldest.IsZero() {
		fmt.Fprintf(t, "; oldest %s", time.Since(q.Oldest).Round(time.Second))
	}
	fmt.Fprintln(t)
	fmt.Fprintf(t, "workers\t%d\n", len(st.Workers))
	for _, w := range st.Workers {
		fmt.Fprintf(t, "  %s\t%s on %s, %s, %s tokens/s\n", w.ID, w.Engine, w.Host, workerState(w),
			cli.Count(int64(w.TokensPerSec)))
	}
	return t.Flush()
}

// deadShown is how many dead jobs of a run status lists.
const deadShown = 10

func printRun(t io.Writer, r *monitor.RunStatus) {
	fmt.Fprintf(t, "run\t%s  %s\n", r.Run.ID, r.Run.State)
	if r.Run.Priority != 0 {
		fmt.Fprintf(t, "  priority\t%d\n", r.Run.Priority)
	}
	if d := r.Dispatcher; d != nil {
		fmt.Fprintf(t, "  dispatcher\t%s on %s, pid %d\n", d.Command, cli.OneLine(d.Host), d.PID)
	}
	fmt.Fprintf(t, "  scores\t%s\n", r.Run.Out)
	fmt.Fprintf(t, "  jobs\t%s", cli.Count(r.Run.Jobs))
	states := make([]string, 0, len(r.Jobs))
	for s := range r.Jobs {
		states = append(states, string(s))
	}
	sort.Strings(states)
	for _, s := range states {
		fmt.Fprintf(t, "  %s %s", cli.Count(r.Jobs[record.State(s)]), s)
	}
	fmt.Fprintf(t, "\n  documents\t%s of %s\n  tokens\t%s of about %s\n",
		cli.Count(r.Documents), cli.Count(r.Run.Rows), cli.Count(r.Tokens), cli.Count(r.Run.Tokens))
	fmt.Fprintf(t, "  progress\t%.1f %%, %s tokens/s, %s left\n",
		math.Floor(10*r.Pace.Percent)/10, cli.Count(int64(r.Pace.TokensPerSec)), left(r.Pace))
	for i, d := range r.Dead {
		if i == deadShown {
			fmt.Fprintf(t, "  dead\tand %s more: dispatcher dead list %s\n", cli.Count(len(r.Dead)-i), r.Run.ID)
			break
		}
		fmt.Fprintf(t, "  dead\t%s: %s\n", d.ID, cli.OneLine(d.Reason))
	}
}
