package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"surprisal/internal/audit"
	"surprisal/internal/dispatch"
	"surprisal/internal/monitor"
)

func newVerify(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify OUT|RUN",
		Short: "Read a run's output again and hold it to its manifest, inputs and digests",
		Long: `Read a run's output again and hold it to its manifest, inputs and digests.

Every score file is read to its last byte: it is its job's, no bit has changed since
it was written, its rows are the job's rows in order, its kept columns are the
input's, and its numbers agree with each other and with its totals. Files that are
missing, of another run, there twice or left by killed workers are found too, and so
are inputs, a manifest and a _SUCCESS that have changed.

Each finding is one line: what kind, which file, what is wrong, what to do. A RUN is
looked up on the NATS server.

--repair moves damaged and foreign files aside, into OUT/.surprisal-quarantine, and
restores the manifest. Then the run's own command scores again what is missing; with
--nats the jobs of a submitted run are queued at once.

--rescore K draws K rows, scores them again on this machine and compares bits.

Exit codes: 0 all is well; 1 there are findings, mended or not; 2 wrong usage.`,
		Example: `  dispatcher verify scores
  dispatcher verify --repair scores && dispatcher run --model examples/demo/model --out scores examples/demo/corpus
  dispatcher verify --rescore 100 --seed 7 scores
  dispatcher verify --nats nats://queue:4222 --repair 20261123-084512-k3f9ab`,
		Args: cobra.ExactArgs(1),
	}
	natsFlags(cmd)
	f := cmd.Flags()
	f.Bool("repair", false, "move what is damaged aside, so that it is scored again")
	f.Int("rescore", 0, "rows to score again on this machine")
	f.Uint64("seed", 0, "draws the rows of --rescore (default a new one each time; it is printed)")
	f.Duration("stale-after", dispatch.StaleAfter, "age of a temporary file that no worker can be writing any more")
	f.String("worker-bin", "", "worker program for --rescore (default the one beside this program)")
	f.Int("threads", 0, "cores that --rescore uses (default all)")
	f.Bool("json", false, "print as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return runVerify(cmd, l, args[0]) }
	return cmd
}

func runVerify(cmd *cobra.Command, l life, arg string) error {
	f := cmd.Flags()
	repair, _ := f.GetBool("repair") // newVerify made these
	rescore, _ := f.GetInt("rescore")
	seed, _ := f.GetUint64("seed")
	stale, _ := f.GetDuration("stale-after")
	bin, _ := f.GetString("worker-bin")
	threads, _ := f.GetInt("threads")
	asJSON, _ := f.GetBool("json")
	if rescore < 0 || threads < 0 || stale < 0 {
		return flagError{errors.New("--rescore, --threads and --stale-after are not negative")}
	}
	if !f.Changed("seed") {
		seed = rand.Uint64()
	}
	log, format, level, err := logger(cmd, os.Stderr, os.Stderr, true)
	if err != nil {
		return err
	}
	t, err := newTarget(cmd, l, arg)
	if err != nil {
		return err
	}
	defer t.close()
	workerArgs := []string{"--log-format", format, "--log-level", workerLevel(level.String())}
	if threads > 0 {
		workerArgs = append(workerArgs, "--threads", strconv.Itoa(threads))
	}
	began := time.Now()
	v, err := audit.Verify(l.drain, audit.VerifyRequest{
		Out: t.out, Client: t.client, Repair: repair, StaleAfter: stale, Rescore: rescore, Seed: seed,
		Local: &dispatch.Local{
			WorkerBin: bin, Args: workerArgs, WorkerLog: os.Stderr, Log: log, Report: func(monitor.Progress) {}, Draining: func() {},
		},
	})
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if asJSON {
		err = printJSON(w, v)
	} else {
		err = printVerification(w, v, repair, time.Since(began))
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
			done = "mended: " + f.Mended
		}
		if _, err := fmt.Fprintf(w, "%s  %s: %s; %s\n", f.Kind, f.File, oneLine(f.What), oneLine(done)); err != nil {
			return err
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "run\t%s\n", v.Run)
	fmt.Fprintf(t, "verified\t%s of %s jobs, %s rows, in %s\n", count(int64(v.Verified)), count(int64(v.Jobs)), count(v.Rows), took.Round(time.Millisecond))
	if r := v.Rescored; r != nil {
		fmt.Fprintf(t, "scored again\t%d rows (--seed %d), %d equal to the last bit\n", r.Rows, r.Seed, r.Equal)
	}
	kinds, counts := v.Kinds()
	line := "none"
	for i, k := range kinds {
		if i == 0 {
			line = ""
		} else {
			line += ", "
		}
		line += fmt.Sprintf("%s %s", count(int64(counts[k])), k)
	}
	fmt.Fprintf(t, "findings\t%s\n", line)
	if repair {
		fmt.Fprintf(t, "repaired\t%d files moved aside, %d jobs queued\n", v.Quarantined, v.Queued)
	}
	return t.Flush()
}
