package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/dispatch"
)

func newSubmit(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "submit --nats URL --model DIR --out DIR INPUT...",
		Short: "Queue a corpus for the workers of a NATS server and print the run ID",
		Long: `Queue a corpus for the workers of a NATS server and print the run ID.

Model, inputs and OUT are paths or URLs: workers must see them at the same places.
The same command again queues only what OUT does not hold yet.`,
		Example: `  dispatcher submit --nats nats://queue:4222 --model /models/gdn2_kla_1.3B --out /scores/fw /data/fineweb
  dispatcher submit --priority 10 --model /models/gdn2_kla_1.3B --out /scores/urgent /data/urgent.parquet
  RUN=$(dispatcher submit ... ) && dispatcher wait $RUN`,
		Args: cobra.MinimumNArgs(1),
	}
	mayQueue(cmd)
	r, q, opt := newRequest(cmd), newQueue(a, cmd), newQueueOptions(cmd)
	var asJSON bool
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := r.of(args)
		if err != nil {
			return err
		}
		client, log, err := q.open()
		if err != nil {
			return err
		}
		defer client.Close()
		s, err := dispatch.Submit(a.Drain, client, req, opt.options(), log)
		if err != nil {
			return err
		}
		defer s.Release()
		failed := 0
		for _, file := range s.Manifest.Files {
			if file.Error != "" {
				failed++
				fmt.Fprintf(os.Stderr, "failed file %s: %s\n", file.Input.Rel, cli.OneLine(file.Error))
			}
		}
		if asJSON {
			return cli.PrintJSON(cmd.OutOrStdout(), map[string]any{
				"run": s.Manifest.Run, "jobs": s.Manifest.JobCount(), "queued": s.Queued,
				"committed": len(s.Committed.Jobs), "failed_files": failed, "out": s.Manifest.Out,
			})
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), s.Manifest.Run)
		return err
	}
	return cmd
}
