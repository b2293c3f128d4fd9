package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
)

func newWorkers(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "workers",
		Short: "List the workers of a NATS server and their state",
		Long: fmt.Sprintf(`List the workers of a NATS server and their state. A worker that dies stays in the list
for up to %s.`, jobs.WorkerTTL),
		Example: "  dispatcher workers --nats nats://queue:4222",
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
		workers, err := client.Workers(a.Drain)
		if err != nil && !errors.Is(err, jobs.ErrNotSetUp) {
			return err
		}
		if asJSON {
			if workers == nil {
				workers = []record.Worker{}
			}
			return cli.PrintJSON(cmd.OutOrStdout(), workers)
		}
		return printWorkers(cmd.OutOrStdout(), workers)
	}
	return cmd
}

func printWorkers(out io.Writer, workers []record.Worker) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WORKER\tHOST\tPID\tENGINE\tDEVICE\tSTATE\tTOKENS/S\tJOBS DONE\tUP\tSEEN\tVERSION")
	for _, x := range workers {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s ago\t%s\n", x.ID, x.Host, x.PID, x.Engine, x.Device,
			workerState(x),
			cli.Count(int64(x.TokensPerSec)), cli.Count(x.JobsDone), time.Since(x.Started).Round(time.Second),
			time.Since(x.Updated).Round(time.Second), x.Version)
	}
	return w.Flush()
}

func workerState(x record.Worker) string {
	state := "idle"
	if n := len(x.Progress); n > 0 {
		state = fmt.Sprintf("%d in hand", n)
	}
	if x.Draining {
		state += ", draining"
	}
	return state
}
