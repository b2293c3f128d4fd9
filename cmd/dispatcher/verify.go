package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"surprisal/internal/audit"
	"surprisal/internal/cli"
	"surprisal/internal/dispatch"
	"surprisal/internal/usage"
)

func newVerify(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify OUT|RUN",
		Short: "Check a run's output against its manifest, inputs and digests",
		Long: `Check a run's output against its manifest, inputs and digests.

Every score file is read to its last byte: it belongs to its job, no bit has changed
since it was written, its rows are the job's rows in order, its kept columns are the
input's, and its numbers agree with each other and with its totals. Files that are
missing, belong to another run, exist twice or were left by killed workers are found
too, and so are changed inputs, a changed manifest and a wrong _SUCCESS.

Each finding is one line: kind, file, problem, remedy. A RUN is looked up on the NATS
server.

--repair moves damaged and foreign files aside, into OUT/.surprisal-quarantine, and
restores the manifest. Then the run's own command scores the missing rows again; with
--nats the jobs of a submitted run are queued at once.

--rescore K scores K random rows again on this machine and compares them bit by bit.

Exit codes: 0 no findings; 1 findings, repaired or not; 2 wrong usage.`,
		Example: `  dispatcher verify scores
  dispatcher verify --repair scores && dispatcher run --model examples/demo/model --out scores examples/demo/corpus
  dispatcher verify --rescore 100 --seed 7 scores
  dispatcher verify --nats nats://queue:4222 --repair 20261123-084512-k3f9ab`,
		Args: cobra.ExactArgs(1),
	}
	mayQueue(cmd)
	o := verifyOptions{q: newQueue(a, cmd)}
	f := cmd.Flags()
	f.BoolVar(&o.req.Repair, "repair", false, "move damaged files aside, so that their rows are scored again")
	f.IntVar(&o.req.Rescore, "rescore", 0, "number of rows to score again on this machine")
	f.Uint64Var(&o.req.Seed, "seed", 0, "seed that selects the rows of --rescore (default random; it is printed)")
	f.DurationVar(&o.req.StaleAfter, "stale-after", dispatch.StaleAfter,
		"minimum age of a temporary file of a dead worker")
	f.StringVar(&o.workerBin, "worker-bin", "", workerBinUsage+", for --rescore")
	f.IntVar(&o.threads, "threads", 0, "cores that --rescore uses (default all)")
	f.BoolVar(&o.asJSON, "json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !f.Changed("seed") {
			o.req.Seed = rand.Uint64()
		}
		return o.verify(cmd.OutOrStdout(), args[0])
	}
	return cmd
}

// verifyOptions are the flags of verify.
type verifyOptions struct {
	q         *queue
	req       audit.VerifyRequest
	workerBin string
	threads   int
	asJSON    bool
}

func (o *verifyOptions) verify(w io.Writer, arg string) error {
	a, req := o.q.app, o.req
	if req.Rescore < 0 || o.threads < 0 || req.StaleAfter < 0 {
		return usage.Errorf("--rescore, --threads and --stale-after must not be negative")
	}
	log, err := a.stderr(zerolog.WarnLevel)
	if err != nil {
		return err
	}
	args, err := a.log.WorkerArgs(os.Stderr, zerolog.WarnLevel)
	if err != nil {
		return err
	}
	if o.threads > 0 {
		args = append(args, "--threads", strconv.Itoa(o.threads))
	}
	t, err := o.q.find(arg)
	if err != nil {
		return err
	}
	defer t.close()
	began := time.Now()
	local := quietLocal(o.workerBin, args, os.Stderr, log)
	req.Out, req.Client, req.Local = t.out, t.client, &local
	v, err := audit.Verify(a.Drain, req)
	if err != nil {
		return err
	}
	if o.asJSON {
		err = cli.PrintJSON(w, v)
	} else {
		err = printVerification(w, v, req.Repair, time.Since(began))
	}
	if err == nil && len(v.Findings) > 0 {
		err = errUnfinished
	}
	return err
}

func printVerification(w io.Writer, v *audit.Verification, repair bool, took time.Duration) error {
	for _, f := range v.Findings {
		done := f.Remedy
		if f.Mended != "" {
			done = "repaired: " + f.Mended
		}
		if _, err := fmt.Fprintf(w, "%s  %s: %s; %s\n", f.Kind, f.File, cli.OneLine(f.What),
			cli.OneLine(done)); err != nil {
			return err
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "run\t%s\n", v.Run)
	fmt.Fprintf(t, "verified\t%s of %s jobs, %s rows, in %s\n",
		cli.Count(v.Verified), cli.Count(v.Jobs), cli.Count(v.Rows), took.Round(time.Millisecond))
	if r := v.Rescored; r != nil {
		fmt.Fprintf(t, "scored again\t%d rows (--seed %d), %d equal to the last bit", r.Rows, r.Seed, r.Equal)
		if r.Close > 0 {
			fmt.Fprintf(t, ", %d equal within rounding (scored on another instruction set)", r.Close)
		}
		fmt.Fprintln(t)
	}
	kinds, counts := v.Kinds()
	line := "none"
	for i, k := range kinds {
		if i == 0 {
			line = ""
		} else {
			line += ", "
		}
		line += fmt.Sprintf("%s %s", cli.Count(counts[k]), k)
	}
	fmt.Fprintf(t, "findings\t%s\n", line)
	if repair {
		fmt.Fprintf(t, "repaired\t%d files moved aside, %d jobs queued\n", v.Quarantined, v.Queued)
	}
	return t.Flush()
}
