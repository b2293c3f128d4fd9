// Command worker takes scoring jobs from a NATS queue, one process per GPU.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/gpu/telemetry"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/score"
	"surprisal/internal/traces"
	"surprisal/internal/usage"
	"surprisal/internal/worker"
)

// version is stamped by the build.
var version = "dev"

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	life, stop := cli.Begin(context.Background())
	defer stop()
	root := newRoot(life)
	root.SetArgs(args)
	err := root.ExecuteContext(life.Abort)
	switch {
	case err == nil && life.Abort.Err() != nil:
		return cli.ExitInterrupted
	case err == nil:
		return cli.ExitOK
	case errors.Is(err, context.Canceled) && life.Drain.Err() != nil:
		return cli.ExitInterrupted
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	return exitCode(err)
}

func exitCode(err error) int {
	if code := cli.Code(err, worker.ErrEngine, worker.ErrAllow, traces.ErrConfig); code == cli.ExitUsage {
		return code
	}
	return cli.ExitFailed // also for a context that ended without a signal
}

// options are the flags.
type options struct {
	worker.Config
	nats         cli.NATS
	log          cli.Log
	metrics      cli.Metrics
	endWithStdin bool
}

func newRoot(life cli.Life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "worker --nats URL",
		Short: "Take scoring jobs from a NATS queue",
		Long: `Take scoring jobs from a NATS queue, of any run, until stopped.

SIGTERM or Ctrl-C drains: the worker takes no more jobs and finishes those it has, or
gives them back after --drain-timeout. A second signal stops at once. If a worker is
killed, another one scores its jobs.

Every flag can also be set in a config file (--config FILE, or ./surprisal.yaml),
under its name, and in the environment as SURPRISAL_<NAME>, dashes as underscores.
The command line wins over the environment, and the environment over the file. The
file may have the dispatcher's flags too. A token or password itself is taken from
SURPRISAL_NATS_TOKEN or SURPRISAL_NATS_PASSWORD alone.

Exit codes: 0 drained; 1 failed; 2 wrong usage; 130 stopped by a second signal.`,
		Example: `  worker --nats nats://queue:4222
  worker --nats nats://queue:4222 --allow-input /data --allow-output /scores --allow-model /models
  SURPRISAL_NATS_TOKEN=... worker --nats tls://queue:4222 --nats-ca ca.pem --engine cpu --threads 8`,
		Args:          cobra.NoArgs,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usage.Error{Err: err} })
	var o options
	o.Program = version
	f := cmd.Flags()
	f.SortFlags = false
	o.nats.Flags(f)
	f.StringVar((*string)(&o.Engine), "engine", string(score.EngineAuto),
		"auto, cpu or cuda; jobs for another engine are left to other workers")
	f.IntVar(&o.GPU, "gpu", 0, "GPU to score on, among the visible ones (CUDA_VISIBLE_DEVICES)")
	f.StringVar(&o.Tokenizer, "tokenizer", "",
		"tokenizer.json to use instead of the jobs' path; its bytes must be the same")
	f.StringSliceVar(&o.AllowInput, "allow-input", nil,
		"folder or URL prefix that jobs may read; may be repeated (default any)")
	f.StringSliceVar(&o.AllowOutput, "allow-output", nil,
		"folder or URL prefix that jobs may write; may be repeated (default any)")
	f.StringSliceVar(&o.AllowModel, "allow-model", nil,
		"folder or URL prefix of models and tokenizers; may be repeated (default any)")
	f.IntVar(&o.Threads, "threads", 0, "cores for tokenizing and the CPU engine (default all)")
	f.IntVar(&o.BatchTokens, "batch-tokens", 0, "token budget of a batch (default the engine's)")
	f.IntVar(&o.InFlight, "in-flight", 0, "maximum number of jobs at a time (default 4)")
	f.DurationVar(&o.DrainTimeout, "drain-timeout", 0,
		"how long a drain may take before jobs are given back (default 20s)")
	f.DurationVar(&o.StallAfter, "stall-after", 0,
		"exit, and give up the job, after this long without progress (default 10m)")
	f.StringVar(&o.ID, "id", "", "worker ID, unique in the cluster (default host, pid and a random part)")
	cli.ConfigFlag(f)
	o.log.Flags(f, "default info")
	o.metrics.Flags(f)
	f.BoolVar(&o.endWithStdin, "end-with-stdin", false,
		"exit when stdin is closed, as it is when the parent process exits")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return cli.Load(cmd, cli.DispatcherFlags()) }
	cmd.RunE = func(*cobra.Command, []string) error { return o.serve(life) }
	cmd.AddCommand(&cobra.Command{
		Use:   "engines",
		Short: "Print the engines of this program on this machine, best first, as JSON",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			have, err := worker.TakeInventory(version)
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(have)
		},
	})
	return cmd
}

func (o *options) serve(life cli.Life) error {
	log, err := o.log.Logger(os.Stderr, os.Stderr, zerolog.InfoLevel)
	if err != nil {
		return err
	}
	nats, err := o.nats.Config("surprisal worker", log)
	if err != nil {
		return err
	}
	nats.Wait = true
	if o.endWithStdin {
		go endWithStdin(log)
	}
	cfg := o.Config
	if err := resolve(&cfg); err != nil {
		return err
	}
	cfg.Log = log
	cfg.Stalled = func(err error) {
		log.Error().Err(err).Msg("no progress; worker exiting")
		os.Exit(cli.ExitFailed)
	}
	if err := cfg.Check(); err != nil { // before it waits for a server
		return err
	}
	p := newProbes()
	cfg.Metrics = p.metrics
	stop, err := o.metrics.Serve(p.metrics.Set, p.unready, log)
	if err != nil {
		return err
	}
	sampler := telemetry.Start(telemetry.Config{UUID: cfg.GPUUUID(), Log: log})
	defer sampler.Close()
	sampler.Register(p.metrics.Set)
	if cfg.GPUUUID() != "" {
		sampler.Await(life.Drain)
	}
	cfg.Telemetry = sampler
	if cfg.Traces, err = traces.New(life.Abort, "surprisal-worker", version, log); err != nil {
		return errors.Join(err, stop())
	}
	defer cfg.Traces.Close()
	return errors.Join(take(life, nats, cfg, p), stop())
}

// resolve makes the places that flags name absolute.
func resolve(cfg *worker.Config) error {
	for flag, list := range map[string][]string{
		"--allow-input": cfg.AllowInput, "--allow-output": cfg.AllowOutput, "--allow-model": cfg.AllowModel,
	} {
		for i := range list {
			if err := cli.Resolve(flag, &list[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// endWithStdin ends the process with its parent: the queue is gone with the parent,
// so that no job can be acknowledged.
func endWithStdin(log zerolog.Logger) {
	_, _ = io.Copy(io.Discard, os.Stdin)
	log.Warn().Msg("parent process exited; worker exiting")
	os.Exit(cli.ExitInterrupted)
}

// take connects and takes jobs until the worker is to end.
func take(life cli.Life, nats conn.Config, cfg worker.Config, p *probes) error {
	client, err := jobs.Connect(life.Drain, nats)
	if err != nil {
		return err
	}
	defer client.Close()
	p.client.Store(client)
	w, err := worker.New(client, cfg)
	if err != nil {
		return err
	}
	p.worker.Store(w)
	return w.Run(life.Drain, life.Abort)
}
