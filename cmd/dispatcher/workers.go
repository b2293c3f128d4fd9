package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"surprisal/internal/jobs"
)

func newWorkers(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "workers",
		Short: "List the workers of a NATS server and what they do",
		Long: fmt.Sprintf(`List the workers of a NATS server and what they do. A worker that dies is listed for
up to %s more.`, jobs.WorkerTTL),
		Example: "  dispatcher workers --nats nats://queue:4222",
		Args:    cobra.NoArgs,
	}
	natsFlags(cmd)
	cmd.Flags().Bool("json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		asJSON, _ := cmd.Flags().GetBool("json")
		client, _, err := onQueue(cmd)
		if err != nil {
			return err
		}
		defer client.Close()
		workers, err := client.Workers(l.drain)
		if err != nil && !errors.Is(err, jobs.ErrNotSetUp) {
			return err
		}
		if asJSON {
			if workers == nil {
				workers = []jobs.WorkerRecord{}
			}
			return printJSON(cmd.OutOrStdout(), workers)
		}
		return printWorkers(cmd.OutOrStdout(), workers)
	}
	return cmd
}

func printWorkers(out io.Writer, workers []jobs.WorkerRecord) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WORKER\tHOST\tPID\tENGINE\tDEVICE\tSTATE\tTOKENS/S\tJOBS DONE\tUP\tSEEN\tVERSION")
	for _, x := range workers {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s ago\t%s\n", x.ID, x.Host, x.PID, x.Engine, x.Device, workerState(x),
			count(int64(x.TokensPerSec)), count(x.JobsDone), time.Since(x.Started).Round(time.Second), time.Since(x.Updated).Round(time.Second), x.Version)
	}
	return w.Flush()
}

func workerState(x jobs.WorkerRecord) string {
	state := "idle"
	if n := len(x.Progress); n > 0 {
		state = fmt.Sprintf("%d in hand", n)
	}
	if x.Draining {
		state += ", draining"
	}
	return state
}
