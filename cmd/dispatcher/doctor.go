package main

import (
	"fmt"
	"io"
	"os"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"surprisal/internal/audit"
	"surprisal/internal/cli"
)

func newDoctor(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything that a run needs: server, queue, worker, model, output folder",
		Long: `Check everything that a run needs, and print a remedy for each problem. What is not
given is not checked.

  --nats     reachable, credentials, JetStream file storage, space, queue, clock, workers
  --monitor  sync_interval and storage limits, which clients cannot see
  --model    the worker scores a line with it: model, tokenizer and engine work
  --out      a file is written, synced and published as a score file is; free space

Each line is ok, warn (runs work) or FAIL (they do not). Nothing is left behind.

Exit codes: 0 no FAIL; 1 a FAIL; 2 wrong usage.`,
		Example: `  dispatcher doctor --model examples/demo/model --out scores
  dispatcher doctor --nats nats://queue:4222 --monitor http://queue:8222 --out /scores/fw`,
		Args: cobra.NoArgs,
	}
	var (
		req       audit.DoctorRequest
		workerBin string
		asJSON    bool
	)
	q := newQueue(a, cmd)
	f := cmd.Flags()
	f.StringVar(&req.Monitor, "monitor", "", "URL of the NATS server's monitoring port (http://HOST:8222)")
	f.StringVar(&req.ModelDir, "model", "", "checkpoint folder to check")
	f.StringVar(&req.Tokenizer, "tokenizer", "", "a tokenizer.json outside the model's folder")
	f.StringVar(&req.Out, "out", "", "output folder to check")
	f.StringVar(&workerBin, "worker-bin", "", workerBinUsage)
	f.BoolVar(&asJSON, "json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		req := req
		for flag, name := range map[string]*string{"--out": &req.Out, "--model": &req.ModelDir,
			"--tokenizer": &req.Tokenizer} {
			if err := cli.Resolve(flag, name); err != nil {
				return err
			}
		}
		log, err := a.log.Logger(os.Stderr, io.Discard, zerolog.WarnLevel) // the checks say what is wrong
		if err != nil {
			return err
		}
		args, err := a.log.WorkerArgs(os.Stderr, zerolog.WarnLevel)
		if err != nil {
			return err
		}
		local := quietLocal(workerBin, append(args, "--log-level", "error"), io.Discard, log)
		req.Local, req.Program = &local, version
		switch cfg, err := q.config(log); {
		case err == nil:
			req.NATS = &cfg
		case err != cli.ErrNoNATS:
			return err
		}
		list, err := a.diagnose(cmd.OutOrStdout(), req, asJSON)
		if err != nil {
			return err
		}
		for _, c := range list {
			if c.State == audit.CheckFail {
				return errUnfinished
			}
		}
		return nil
	}
	return cmd
}

// diagnose prints each check when it is done, or all as JSON.
func (a *app) diagnose(w io.Writer, req audit.DoctorRequest, asJSON bool) (list []audit.Check, err error) {
	err = audit.Diagnose(a.Drain, req, func(c audit.Check) {
		if list = append(list, c); asJSON {
			return
		}
		line := fmt.Sprintf("%-4s  %-13s  %s", c.State, c.Name, cli.OneLine(c.What))
		if c.Remedy != "" {
			line += " -- " + c.Remedy
		}
		fmt.Fprintln(w, line)
	})
	if err == nil && asJSON {
		err = cli.PrintJSON(w, list)
	}
	return list, err
}
