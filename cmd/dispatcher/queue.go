package main

import (
	"fmt"
	"math"
	"os"
	"sort"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/monitor"
)

func newSubmit(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "submit --nats URL --model DIR --out DIR INPUT...",
		Short: "Queue a corpus for the workers of a NATS server and print the run's id",
		Long: `Queue a corpus for the workers of a NATS server and print the run's id.

Model, inputs and OUT are named by path or URL: workers must see them at the same places.
Submitting the same command again queues only what OUT does not hold yet.`,
		Example: `  dispatcher submit --nats nats://queue:4222 --model /models/gdn2_kla_1.3B --out /scores/fw /data/fineweb
  dispatcher submit --priority 10 --model /models/gdn2_kla_1.3B --out /scores/urgent /data/urgent.parquet
  RUN=$(dispatcher submit ... ) && dispatcher wait $RUN`,
		Args: cobra.MinimumNArgs(1),
	}
	requestFlags(cmd)
	natsFlags(cmd)
	queueFlags(cmd)
	cmd.Flags().Bool("json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := request(cmd, args)
		if err != nil {
			return err
		}
		opt := queueOptions(cmd)
		asJSON, _ := cmd.Flags().GetBool("json") // made above
		client, log, err := onQueue(cmd)
		if err != nil {
			return err
		}
		defer client.Close()
		s, err := dispatch.Submit(l.drain, client, req, opt, log)
		if err != nil {
			return err
		}
		defer s.Release()
		failed := 0
		for _, file := range s.Manifest.Files {
			if file.Error != "" {
				failed++
				fmt.Fprintf(os.Stderr, "failed file %s: %s\n", file.Input.Rel, oneLine(file.Error))
			}
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]any{
				"run": s.Manifest.Run, "jobs": s.Manifest.JobCount(), "queued": s.Queued,
				"committed": len(s.Committed.Jobs), "failed_files": failed, "out": s.Manifest.Out,
			})
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), s.Manifest.Run)
		return err
	}
	return cmd
}

// queueFlags adds what a run is queued with.
func queueFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Int("priority", 0, "workers take jobs of runs with a higher one first; equal ones share the workers")
	f.Duration("ack-wait", 0, "when a silent worker's job is given to another (default 60s), when the run is first queued")
	f.Int("replicas", 0, "replicas of the queue when it is first made: 1, or 3 on a cluster")
}

// queueOptions reads queueFlags.
func queueOptions(cmd *cobra.Command) dispatch.QueueOptions {
	f := cmd.Flags()
	replicas, _ := f.GetInt("replicas") // queueFlags made them
	ackWait, _ := f.GetDuration("ack-wait")
	opt := dispatch.QueueOptions{Topology: jobs.Topology{Replicas: replicas}, Run: jobs.RunConfig{AckWait: ackWait}}
	if f.Changed("priority") {
		n, _ := f.GetInt("priority")
		opt.Priority = &n
	}
	return opt
}

func newWait(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait RUN",
		Short: "Watch a submitted run until it is complete and checked",
		Long: `Watch a submitted run until every job is committed or dead, check OUT against the
manifest, write _SUCCESS and print the summary. Any number may wait; a wait that
is interrupted changes nothing.`,
		Example: "  dispatcher wait --nats nats://queue:4222 20261123-084512-k3f9ab",
		Args:    cobra.ExactArgs(1),
	}
	natsFlags(cmd)
	cmd.Flags().Bool("json", false, "print the summary as JSON")
	metricsFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return waitFor(cmd, l, args[0])
	}
	return cmd
}

// waitFor watches a run to its end.
func waitFor(cmd *cobra.Command, l life, run string) error {
	asJSON, _ := cmd.Flags().GetBool("json")
	meter := newMeter(os.Stderr)
	defer meter.Close()
	log, _, _, err := logger(cmd, os.Stderr, meter, meter.bar)
	if err != nil {
		return err
	}
	mon, err := newExporter(cmd, log)
	if err != nil {
		return err
	}
	defer mon.Close()
	client, err := connect(cmd, log)
	if err != nil {
		return err
	}
	defer client.Close()
	tell, end := mon.observe(l.drain, client, nil, log)
	defer end()
	sum, err := dispatch.Wait(l.drain, client, run, func(p monitor.Progress) { tell(p); meter.Show(p, log) }, log)
	meter.Close()
	if l.drain.Err() != nil && sum == nil {
		return fmt.Errorf("stopped waiting; the run goes on: %w", dispatch.ErrInterrupted)
	}
	return finish(cmd.OutOrStdout(), sum, err, asJSON)
}

func newList(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the runs that a NATS server knows",
		Example: "  dispatcher list --nats nats://queue:4222 --json",
		Args:    cobra.NoArgs,
	}
	natsFlags(cmd)
	cmd.Flags().Bool("json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return printRuns(cmd, l) }
	return cmd
}

// printRuns prints each run's record.
func printRuns(cmd *cobra.Command, l life) error {
	asJSON, _ := cmd.Flags().GetBool("json")
	client, _, err := onQueue(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	runs, err := monitor.ListRuns(l.drain, client)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), runs)
	}
	t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RUN\tSTATE\tJOBS\tDEAD\tDONE\tTOKENS/S\tLEFT\tROWS\tCREATED\tOUT")
	for _, r := range runs {
		fmt.Fprintf(t, "%s\t%s\t%s/%s\t%s\t%.0f %%\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.State, count(int64(r.Pace.Done)), count(int64(r.Pace.Total)),
			count(int64(r.Dead)), math.Floor(r.Pace.Percent), count(int64(r.Pace.TokensPerSec)), left(r.Pace), count(r.Rows), r.Created, r.Out)
	}
	return t.Flush()
}

// left is the time that a run still takes, for people.
func left(p monitor.Pace) string {
	if p.Left == nil {
		return "-"
	}
	return time.Duration(*p.Left * float64(time.Second)).String()
}

func newStatus(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [RUN]",
		Short: "Show how a run stands, or all runs, the queue and the workers",
		Example: `  dispatcher status --nats nats://queue:4222
  dispatcher status --nats nats://queue:4222 20261123-084512-k3f9ab --json`,
		Args: cobra.MaximumNArgs(1),
	}
	natsFlags(cmd)
	cmd.Flags().Bool("json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		asJSON, _ := cmd.Flags().GetBool("json")
		client, _, err := onQueue(cmd)
		if err != nil {
			return err
		}
		defer client.Close()
		run := ""
		if len(args) == 1 {
			run = args[0]
		}
		st, err := monitor.GetStatus(l.drain, client, run)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), st)
		}
		return printStatus(cmd, st)
	}
	return cmd
}

func printStatus(cmd *cobra.Command, st *monitor.Status) error {
	t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, r := range st.Runs {
		fmt.Fprintf(t, "run\t%s  %s\n", r.Run.ID, r.Run.State)
		if r.Run.Priority != 0 {
			fmt.Fprintf(t, "  priority\t%d\n", r.Run.Priority)
		}
		if r.Dispatcher != nil {
			fmt.Fprintf(t, "  dispatcher\t%s on %s, pid %d\n", r.Dispatcher.Command, oneLine(r.Dispatcher.Host), r.Dispatcher.PID)
		}
		fmt.Fprintf(t, "  scores\t%s\n", r.Run.Out)
		fmt.Fprintf(t, "  jobs\t%s", count(int64(r.Run.Jobs)))
		states := make([]string, 0, len(r.Jobs))
		for s := range r.Jobs {
			states = append(states, string(s))
		}
		sort.Strings(states)
		for _, s := range states {
			fmt.Fprintf(t, "  %s %s", count(int64(r.Jobs[jobs.State(s)])), s)
		}
		fmt.Fprintf(t, "\n  documents\t%s of %s\n  tokens\t%s of about %s\n", count(r.Documents), count(r.Run.Rows), count(r.Tokens), count(r.Run.Tokens))
		fmt.Fprintf(t, "  progress\t%.1f %%, %s tokens/s, %s left\n", math.Floor(10*r.Pace.Percent)/10, count(int64(r.Pace.TokensPerSec)), left(r.Pace))
		for i, d := range r.Dead {
			if i == 10 {
				fmt.Fprintf(t, "  dead\tand %s more: dispatcher dead list %s\n", count(int64(len(r.Dead)-i)), r.Run.ID)
				break
			}
			fmt.Fprintf(t, "  dead\t%s: %s\n", d.ID, oneLine(d.Reason))
		}
	}
	q := st.Queue
	fmt.Fprintf(t, "queue\t%s jobs: %s waiting, %s in hand or delayed", count(int64(q.Messages)), count(int64(q.Pending)), count(int64(q.AckPending)))
	if !q.Oldest.IsZero() {
		fmt.Fprintf(t, "; oldest %s", time.Since(q.Oldest).Round(time.Second))
	}
	fmt.Fprintln(t)
	fmt.Fprintf(t, "workers\t%d\n", len(st.Workers))
	for _, w := range st.Workers {
		fmt.Fprintf(t, "  %s\t%s on %s, %s, %s tokens/s\n", w.ID, w.Engine, w.Host, workerState(w), count(int64(w.TokensPerSec)))
	}
	return t.Flush()
}
