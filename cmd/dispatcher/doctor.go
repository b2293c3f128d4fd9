package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"surprisal/internal/audit"
	"surprisal/internal/dispatch"
	"surprisal/internal/monitor"
)

func newDoctor(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at all that a run needs: server, queue, worker, model, output folder",
		Long: `Look at all that a run needs, and say what to do about what is not well. What is not
named is passed over.

  --nats     reachable, credentials, JetStream in files, room, queue, clock, workers
  --monitor  sync_interval and room of the store, which clients are not told
  --model    the worker scores a line with it: model, tokenizer and engine work
  --out      a file is written, synced and published as a score file is; free disk

Each line is ok, warn (runs work) or FAIL (they won't). Nothing is left behind.

Exit codes: 0 no FAIL; 1 a FAIL; 2 wrong usage.`,
		Example: `  dispatcher doctor --model examples/demo/model --out scores
  dispatcher doctor --nats nats://queue:4222 --monitor http://queue:8222 --out /scores/fw`,
		Args: cobra.NoArgs,
	}
	natsFlags(cmd)
	f := cmd.Flags()
	f.String("monitor", "", "URL of the NATS server's monitoring port (http://HOST:8222)")
	f.String("model", "", "checkpoint folder to try")
	f.String("tokenizer", "", "tokenizer.json that is elsewhere than in the model's folder")
	f.String("out", "", "output folder to try")
	f.String("worker-bin", "", "worker program (default the one beside this program)")
	f.Bool("json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		str := func(name string) string { s, _ := f.GetString(name); return s } // made above
		asJSON, _ := f.GetBool("json")
		log, format, _, err := logger(cmd, os.Stderr, io.Discard, true) // what is wrong is in the checks
		if err != nil {
			return err
		}
		req := audit.DoctorRequest{
			Monitor: str("monitor"), Out: str("out"), ModelDir: str("model"), Tokenizer: str("tokenizer"), Program: version,
			Local: &dispatch.Local{
				WorkerBin: str("worker-bin"), Args: []string{"--log-format", format, "--log-level", "error"}, WorkerLog: io.Discard,
				Log: log, Report: func(monitor.Progress) {}, Draining: func() {},
			},
		}
		switch cfg, err := natsConfig(cmd, log); {
		case err == nil:
			req.NATS = &cfg
		case !errors.Is(err, errNoNATS):
			return err
		}
		var list []audit.Check
		failed := false
		err = audit.Diagnose(l.drain, req, func(c audit.Check) {
			failed = failed || c.State == audit.CheckFail
			if list = append(list, c); asJSON {
				return
			}
			line := fmt.Sprintf("%-4s  %-13s  %s", c.State, c.Name, oneLine(c.What))
			if c.Remedy != "" {
				line += " -- " + c.Remedy
			}
			fmt.Fprintln(cmd.OutOrStdout(), line)
		})
		if err == nil && asJSON {
			err = printJSON(cmd.OutOrStdout(), list)
		}
		if err == nil && failed {
			err = errUnfinished
		}
		return err
	}
	return cmd
}
