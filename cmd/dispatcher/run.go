package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/dispatch"
	"surprisal/internal/monitor"
	"surprisal/internal/usage"
)

// workerBinUsage is the help of --worker-bin.
const workerBinUsage = "worker program (default the one in this program's folder)"

// runOptions are the flags of run.
type runOptions struct {
	*request
	metrics                       cli.Metrics
	workers, threads, batchTokens int
	workerBin                     string
	asJSON                        bool
}

func newRun(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run --model DIR --out DIR INPUT...",
		Short: "Score a corpus on this machine, with its own server and workers",
		Long: `Score a corpus on this machine, with its own server and workers.

INPUT is a file of parquet or JSON lines (.jsonl, also .gz and .zst), a folder
(searched recursively) or a glob ('data/**/*.parquet'): local, in a bucket (s3://,
gs://, az://), in a Hugging Face data set (hf://datasets/OWNER/NAME/PATH), or one
https:// file. OUT may be in a bucket, the model in a Hugging Face repository
(hf://OWNER/NAME/PATH). Credentials come from the environment: see docs/storage.md.
Each input file's scores go to OUT/<its path>/rows-<first>-<last>.parquet.

Ctrl-C finishes the running jobs; a second Ctrl-C stops at once. The same command
again, after that or after a crash, continues where it stopped and scores nothing
twice.`,
		Example: `  dispatcher run --model examples/demo/model --out scores examples/demo/corpus
  dispatcher run --model gdn2_kla_1.3B --out scores --keep id,dump --long window 'fineweb/**/*.parquet'
  dispatcher run --model gdn2_kla_1.3B --out s3://scores/fw 's3://corpus/fineweb/**/*.parquet'
  dispatcher run --model gdn2_kla_1.3B --out scores --ids-column input_ids tokenized/
  dispatcher run --model gdn2_kla_1.3B --out scores --context-column question --target-column answer choices.parquet`,
		Args: cobra.MinimumNArgs(1),
	}
	mayQueue(cmd)
	o := runOptions{request: newRequest(cmd)}
	f := cmd.Flags()
	f.IntVar(&o.workers, "workers", 0, "worker processes (default one per GPU, or one that uses every core)")
	f.IntVar(&o.threads, "threads", 0, "cores that a worker uses (default all, shared among the workers)")
	f.IntVar(&o.batchTokens, "batch-tokens", 0, "token budget of a batch (default the engine's)")
	f.StringVar(&o.workerBin, "worker-bin", "", workerBinUsage)
	f.BoolVar(&o.asJSON, "json", false, "print the summary as JSON")
	o.metrics.Flags(f)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.run(cmd.OutOrStdout(), &o, args) }
	return cmd
}

func (a *app) run(out io.Writer, o *runOptions, inputs []string) error {
	req, err := o.of(inputs)
	if err != nil {
		return err
	}
	if o.workers < 0 || o.threads < 0 || o.batchTokens < 0 {
		return usage.Errorf("--workers, --threads and --batch-tokens must be at least 1")
	}
	meter := newMeter(os.Stderr)
	defer meter.Close()
	log, err := a.log.Logger(os.Stderr, meter, meter.level())
	if err != nil {
		return err
	}
	args, err := a.log.WorkerArgs(os.Stderr, meter.level())
	if err != nil {
		return err
	}
	if o.batchTokens > 0 {
		args = append(args, "--batch-tokens", strconv.Itoa(o.batchTokens))
	}
	mon, err := newWatch(&o.metrics, log)
	if err != nil {
		return err
	}
	defer mon.Close()
	local := dispatch.Local{
		Workers: o.workers, Threads: o.threads, WorkerBin: o.workerBin, Args: args, ArgsOf: workerMetrics(o.metrics),
		WorkerLog: meter, Log: log, Report: func(p monitor.Progress) { meter.Show(p, log) },
		Draining: func() {
			log.Warn().Msg("draining: finishing the running jobs, taking no more; interrupt again to stop at once")
		},
	}
	if mon != nil {
		local.Metrics, local.Observe = mon.meter, func(o *monitor.Observer) { mon.observer.Store(o) }
	}
	sum, err := local.Run(a.Drain, a.Abort, req)
	meter.Close()
	return finish(out, sum, err, o.asJSON)
}

// quietLocal runs workers for a command that reports no progress of theirs.
func quietLocal(workerBin string, args []string, workerLog io.Writer, log zerolog.Logger) dispatch.Local {
	return dispatch.Local{
		WorkerBin: workerBin, Args: args, WorkerLog: workerLog, Log: log,
		Report: func(monitor.Progress) {}, Draining: func() {},
	}
}

// finish prints the summary and decides between errUnfinished and success.
func finish(w io.Writer, sum *dispatch.Summary, err error, asJSON bool) error {
	if sum != nil {
		if perr := printSummary(w, sum, asJSON); perr != nil {
			return fmt.Errorf("print summary: %w", perr)
		}
	}
	switch {
	case errors.Is(err, dispatch.ErrInterrupted):
		fmt.Fprintln(os.Stderr, "interrupted: committed scores are kept; the same command continues from here")
		return err
	case err != nil:
		return err
	case !sum.Complete:
		return errUnfinished
	}
	return nil
}
