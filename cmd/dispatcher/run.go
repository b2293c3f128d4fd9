package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"surprisal/internal/dispatch"
	"surprisal/internal/monitor"
)

func newRun(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run --model DIR --out DIR INPUT...",
		Short: "Score a corpus on this machine, with a server and workers of its own",
		Long: `Score a corpus on this machine, with a server and workers of its own.

INPUT is a file of parquet or JSON lines (.jsonl, .gz and .zst too), a folder
(searched through) or a glob ('data/**/*.parquet'), here or in a bucket (s3://,
gs://, az://) or a Hugging Face data set (hf://datasets/OWNER/NAME/PATH), or one
https:// file. OUT may be in a bucket, the model in a Hugging Face repository
(hf://OWNER/NAME/PATH). Credentials come from the environment: see docs/storage.md.
Each input file's scores go to OUT/<its path>/rows-<first>-<last>.parquet.

Ctrl-C finishes the jobs in hand; a second one stops at once. The same command
again, after that or after a crash, goes on where it stopped and scores nothing
twice.`,
		Example: `  dispatcher run --model examples/demo/model --out scores examples/demo/corpus
  dispatcher run --model gdn2_kla_1.3B --out scores --keep id,dump --long window 'fineweb/**/*.parquet'
  dispatcher run --model gdn2_kla_1.3B --out s3://scores/fw 's3://corpus/fineweb/**/*.parquet'
  dispatcher run --model gdn2_kla_1.3B --out scores --ids-column input_ids tokenized/
  dispatcher run --model gdn2_kla_1.3B --out scores --context-column question --target-column answer choices.parquet`,
		Args: cobra.MinimumNArgs(1),
	}
	requestFlags(cmd)
	f := cmd.Flags()
	f.Int("workers", 0, "worker processes (default one a GPU, or one that uses every core)")
	f.Int("threads", 0, "cores a worker uses (default all, shared among the workers)")
	f.Int("batch-tokens", 0, "token budget of a batch (default the engine's)")
	f.String("worker-bin", "", "worker program (default the one beside this program)")
	f.Bool("json", false, "print the summary as JSON")
	metricsFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return runLocal(cmd, l, args) }
	return cmd
}

func runLocal(cmd *cobra.Command, l life, inputs []string) error {
	req, err := request(cmd, inputs)
	if err != nil {
		return err
	}
	f := cmd.Flags()
	workers, _ := f.GetInt("workers") // newRun made these
	threads, _ := f.GetInt("threads")
	batch, _ := f.GetInt("batch-tokens")
	bin, _ := f.GetString("worker-bin")
	asJSON, _ := f.GetBool("json")
	if workers < 0 || threads < 0 || batch < 0 {
		return flagError{errors.New("--workers, --threads and --batch-tokens are at least 1")}
	}
	meter := newMeter(os.Stderr)
	defer meter.Close()
	log, format, level, err := logger(cmd, os.Stderr, meter, meter.bar)
	if err != nil {
		return err
	}
	mon, err := newExporter(cmd, log)
	if err != nil {
		return err
	}
	defer mon.Close()
	args := []string{"--log-format", format, "--log-level", workerLevel(level.String())}
	if batch > 0 {
		args = append(args, "--batch-tokens", strconv.Itoa(batch))
	}
	local := dispatch.Local{
		Workers: workers, Threads: threads, WorkerBin: bin, Args: args, WorkerLog: meter, Log: log, ArgsOf: workerArgs(cmd),
		Report: func(p monitor.Progress) { meter.Show(p, log) },
		Draining: func() {
			log.Warn().Msg("draining: jobs in hand are finished, no more are taken; interrupt again to stop now")
		},
	}
	if mon != nil {
		local.Metrics, local.Observe = mon.meter, func(o *monitor.Observer) { mon.observer.Store(o) }
	}
	sum, err := local.Run(l.drain, l.ctx, req)
	meter.Close()
	return finish(cmd.OutOrStdout(), sum, err, asJSON)
}

// workerLevel keeps workers' every-job lines out of a quiet terminal; the
// dispatcher tells of each job itself.
func workerLevel(level string) string {
	if level == "info" {
		return "warn"
	}
	return level
}

// finish prints the summary and turns what is missing into the exit code.
func finish(w io.Writer, sum *dispatch.Summary, err error, asJSON bool) error {
	if sum != nil {
		if perr := printSummary(w, sum, asJSON); perr != nil {
			return fmt.Errorf("print summary: %w", perr)
		}
	}
	switch {
	case errors.Is(err, dispatch.ErrInterrupted):
		fmt.Fprintln(os.Stderr, "interrupted: what is scored is kept; the same command goes on from here")
		return err
	case err != nil:
		return err
	case !sum.Complete:
		return errUnfinished
	}
	return nil
}
