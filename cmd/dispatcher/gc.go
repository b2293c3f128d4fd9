package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"surprisal/internal/audit"
	"surprisal/internal/dispatch"
)

// keepRuns is how long the records of runs that are over are kept by default.
const keepRuns = 7 * 24 * time.Hour

func newGC(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gc [OUT|RUN]",
		Short: "Remove what is left over: temporaries, quarantine, records of runs that are over",
		Long: `Remove what is left over.

In OUT, or the output folder of RUN: temporary files of workers that are gone: they
are older than --stale-after and, with --nats, older than what workers have in hand;
with --quarantine also what verify moved aside.
On the NATS server: queue, records and dead letters of runs that are over (complete,
failed or cancelled) and have not changed for --older-than; of RUN alone if one is
named. Their output folders stay as they are: the same submit goes on from there.

Committed score files are never touched.`,
		Example: `  dispatcher gc --dry-run scores
  dispatcher gc --quarantine --stale-after 10m scores
  dispatcher gc --nats nats://queue:4222 --older-than 720h`,
		Args: cobra.MaximumNArgs(1),
	}
	natsFlags(cmd)
	f := cmd.Flags()
	f.Bool("dry-run", false, "list what would go; remove nothing")
	f.Bool("quarantine", false, "remove what verify --repair moved aside, too")
	f.Duration("stale-after", dispatch.StaleAfter, "age of a temporary file that no worker can be writing any more")
	f.Duration("older-than", keepRuns, "how long a run must have been over")
	f.Bool("json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dry, _ := f.GetBool("dry-run") // made above
		quarantine, _ := f.GetBool("quarantine")
		stale, _ := f.GetDuration("stale-after")
		older, _ := f.GetDuration("older-than")
		asJSON, _ := f.GetBool("json")
		if stale <= 0 || older < 0 {
			return flagError{errors.New("--stale-after is positive, --older-than is not negative")}
		}
		t, err := gcTarget(cmd, l, args)
		if err != nil {
			return err
		}
		defer t.close()
		list := []audit.Garbage{}
		err = audit.CollectGarbage(l.drain, audit.GarbageRequest{
			Out: t.out, StaleAfter: stale, Quarantine: quarantine, Client: t.client, Run: t.run, OlderThan: older, DryRun: dry,
		}, func(g audit.Garbage) error {
			if asJSON {
				list = append(list, g)
				return nil
			}
			verb := "removed"
			if dry {
				verb = "would remove"
			}
			size := ""
			if g.Kind != "run" {
				size = fmt.Sprintf("%s bytes, ", count(g.Bytes))
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s (%s%s old): %s\n", verb, g.Kind, g.Name, size,
				time.Duration(g.Age*float64(time.Second)).Round(time.Second), g.Why)
			return err
		})
		if asJSON {
			if perr := printJSON(cmd.OutOrStdout(), list); err == nil {
				err = perr
			}
		}
		return err
	}
	return cmd
}

// gcTarget is what to look through; without an argument the server's runs alone.
func gcTarget(cmd *cobra.Command, l life, args []string) (*targetRun, error) {
	if len(args) == 1 {
		return newTarget(cmd, l, args[0])
	}
	return newServer(cmd)
}
