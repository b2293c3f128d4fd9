package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"surprisal/internal/audit"
	"surprisal/internal/cli"
	"surprisal/internal/dispatch"
	"surprisal/internal/usage"
)

// keepRuns is how long the records of finished runs are kept by default.
const keepRuns = 7 * 24 * time.Hour

func newGC(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gc [OUT|RUN]",
		Short: "Remove what is no longer needed: temporary files, quarantine, records of finished runs",
		Long: `Remove what is no longer needed.

In OUT, or the output folder of RUN: temporary files of dead workers. They are older
than --stale-after and, with --nats, older than any job that a worker has. With
--quarantine also the files that verify moved aside.
On the NATS server: queue, records and dead letters of runs that are over (complete,
failed or cancelled) and have not changed for --older-than; with RUN, of that run
alone. Output folders stay as they are: the same submit continues from there.

Committed score files are never touched.`,
		Example: `  dispatcher gc --dry-run scores
  dispatcher gc --quarantine --stale-after 10m scores
  dispatcher gc --nats nats://queue:4222 --older-than 720h`,
		Args: cobra.MaximumNArgs(1),
	}
	var (
		req    audit.GarbageRequest
		asJSON bool
	)
	q := newQueue(a, cmd)
	f := cmd.Flags()
	f.BoolVar(&req.DryRun, "dry-run", false, "list what would be removed; remove nothing")
	f.BoolVar(&req.Quarantine, "quarantine", false, "also remove what verify --repair moved aside")
	f.DurationVar(&req.StaleAfter, "stale-after", dispatch.StaleAfter,
		"minimum age of a temporary file of a dead worker")
	f.DurationVar(&req.OlderThan, "older-than", keepRuns, "how long a run must have been over")
	f.BoolVar(&asJSON, "json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if req.StaleAfter <= 0 || req.OlderThan < 0 {
			return usage.Errorf("--stale-after must be positive, and --older-than must not be negative")
		}
		t, err := gcTarget(q, args)
		if err != nil {
			return err
		}
		defer t.close()
		req := req
		req.Out, req.Run, req.Client = t.out, t.run, t.client
		list := []audit.Garbage{}
		w := cmd.OutOrStdout()
		err = audit.CollectGarbage(a.Drain, req, func(g audit.Garbage) error {
			if asJSON {
				list = append(list, g)
				return nil
			}
			return printGarbage(w, g, req.DryRun)
		})
		if asJSON {
			if perr := cli.PrintJSON(w, list); err == nil {
				err = perr
			}
		}
		return err
	}
	return cmd
}

func printGarbage(w io.Writer, g audit.Garbage, dry bool) error {
	verb, size := "removed", ""
	if dry {
		verb = "would remove"
	}
	if g.Kind != "run" {
		size = fmt.Sprintf("%s bytes, ", cli.Count(g.Bytes))
	}
	_, err := fmt.Fprintf(w, "%s %s %s (%s%s old): %s\n", verb, g.Kind, g.Name, size,
		time.Duration(g.Age*float64(time.Second)).Round(time.Second), g.Why)
	return err
}

// gcTarget is where to remove things: without an argument, from the server alone.
func gcTarget(q *queue, args []string) (*target, error) {
	if len(args) == 1 {
		return q.find(args[0])
	}
	client, _, err := q.open()
	if err != nil {
		return nil, err
	}
	return &target{client: client}, nil
}
