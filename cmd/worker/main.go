// Command worker takes scoring jobs from a NATS queue, one process a GPU.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"surprisal/internal/gpu/telemetry"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/metrics"
	"surprisal/internal/score"
	"surprisal/internal/traces"
	"surprisal/internal/worker"
)

// version is stamped by the build.
var version = "dev"

// Exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	work, abort := context.WithCancel(context.Background())
	defer abort()
	fetch, drain := context.WithCancel(work)
	defer drain()
	signals := make(chan os.Signal, 2) // one to drain, one to abort
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() { // lives as long as the process
		<-signals
		drain()
		<-signals
		abort()
	}()
	root := newRoot(fetch, work)
	root.SetArgs(args)
	err := root.ExecuteContext(work)
	var use usageError
	switch {
	case err == nil && work.Err() != nil:
		return exitInterrupted
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && (fetch.Err() != nil):
		return exitInterrupted
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	if errors.As(err, &use) {
		return exitUsage
	}
	for _, wrong := range []error{worker.ErrEngine, worker.ErrAllow, metrics.ErrAddress, traces.ErrConfig, conn.ErrAuth, conn.ErrConfig, conn.ErrTLS, conn.ErrDenied} {
		if errors.Is(err, wrong) {
			return exitUsage
		}
	}
	return exitFailed
}

// usageError is wrong flags or environment.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func newRoot(fetch, work context.Context) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "worker --nats URL",
		Short: "Take scoring jobs from a NATS queue",
		Long: `Take scoring jobs from a NATS queue, of any run, until told to stop.

SIGTERM or Ctrl-C drains: no more jobs are taken, those in hand are finished, or
given back after --drain-timeout. A second signal stops at once. What is killed
in whatever way is scored by another worker.

Every flag can be set in the environment as SURPRISAL_<NAME>; a token or password
itself only there, as SURPRISAL_NATS_TOKEN or SURPRISAL_NATS_PASSWORD.`,
		Example: `  worker --nats nats://queue:4222
  worker --nats nats://queue:4222 --allow-input /data --allow-output /scores --allow-model /models
  SURPRISAL_NATS_TOKEN=... worker --nats tls://queue:4222 --nats-ca ca.pem --engine cpu --threads 8`,
		Args:          cobra.NoArgs,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := cmd.Flags()
	f.SortFlags = false
	f.String("nats", "", "URL of the NATS server, or several, comma-separated")
	for _, s := range new(conn.Config).Settings() {
		if s.Name != "" {
			f.String(s.Name, "", s.Usage)
		}
	}
	f.String("engine", string(score.EngineAuto), "auto, cpu or cuda; jobs that ask for another are left to others")
	f.Int("gpu", 0, "GPU to score on, among the visible ones (CUDA_VISIBLE_DEVICES)")
	f.String("tokenizer", "", "tokenizer.json to use instead of the path that jobs name; its bytes must be the same")
	f.StringSlice("allow-input", nil, "folder or URL prefix that jobs may read; may be given again (default any)")
	f.StringSlice("allow-output", nil, "folder or URL prefix that jobs may write; may be given again (default any)")
	f.StringSlice("allow-model", nil, "folder or URL prefix of models and tokenizers; may be given again (default any)")
	f.Int("threads", 0, "cores for tokenizing and the CPU engine (default all)")
	f.Int("batch-tokens", 0, "token budget of a batch (default the engine's)")
	f.Int("in-flight", 0, "jobs in hand at most (default 4)")
	f.Duration("drain-timeout", 0, "how long a drain may take before jobs are given back (default 20s)")
	f.Duration("stall-after", 0, "a job without progress for so long is given up, and the worker ends (default 10m)")
	f.String("id", "", "the worker's id, unique in the cluster (default host, pid and a random part)")
	f.String("log-format", "auto", "auto, console or json; auto: console at a terminal")
	f.String("log-level", "info", "debug, info, warn or error")
	f.String("metrics-addr", "", "serve /metrics, /healthz and /readyz there: host:port, or :port for this machine alone (default not at all)")
	f.Bool("pprof", false, "serve /debug/pprof there too")
	f.Bool("end-with-stdin", false, "end when stdin closes, as it does when a parent process ends")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd) }
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return serve(cmd, fetch, work) }
	cmd.AddCommand(&cobra.Command{
		Use:   "engines",
		Short: "Print the engines that this program has on this machine, best first, as JSON",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printEngines(cmd.OutOrStdout())
		},
	})
	return cmd
}

// fromEnvironment sets the flags that the command line did not.
func fromEnvironment(cmd *cobra.Command) error {
	var first error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "SURPRISAL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := os.LookupEnv(name); ok && !f.Changed && first == nil {
			if err := cmd.Flags().Set(f.Name, v); err != nil {
				first = usageError{fmt.Errorf("%s: %w", name, err)}
			}
		}
	})
	return first
}

func serve(cmd *cobra.Command, fetch, work context.Context) error {
	f := cmd.Flags()
	str := func(name string) string { s, _ := f.GetString(name); return s } // newRoot made them all
	list := func(name string) []string { l, _ := f.GetStringSlice(name); return l }
	num := func(name string) int { n, _ := f.GetInt(name); return n }
	dur := func(name string) time.Duration { d, _ := f.GetDuration(name); return d }
	log, err := logger(str("log-format"), str("log-level"))
	if err != nil {
		return err
	}
	nats := conn.FromEnv(os.Getenv)
	if u := str("nats"); u != "" {
		nats.URLs = strings.Split(u, ",")
	}
	if len(nats.URLs) == 0 {
		return usageError{errors.New("no NATS server is named: give --nats URL or set SURPRISAL_NATS_URL")}
	}
	for _, s := range nats.Settings() {
		if s.Name == "" {
			continue
		}
		if v := str(s.Name); v != "" {
			*s.Value = v
		}
	}
	if end, _ := f.GetBool("end-with-stdin"); end {
		go func() { // lives as long as the process
			_, _ = io.Copy(io.Discard, os.Stdin)
			// The parent is gone, and the queue with it: nothing in hand can be acked.
			log.Warn().Msg("parent process ended: this worker ends too")
			os.Exit(exitInterrupted)
		}()
	}
	cfg := worker.Config{
		ID: str("id"), Engine: score.EngineKind(str("engine")), GPU: num("gpu"), Tokenizer: str("tokenizer"),
		AllowInput: list("allow-input"), AllowOutput: list("allow-output"), AllowModel: list("allow-model"),
		Threads: num("threads"), BatchTokens: num("batch-tokens"), InFlight: num("in-flight"),
		DrainTimeout: dur("drain-timeout"), StallAfter: dur("stall-after"), Program: version, Log: log,
		Stalled: func(err error) {
			log.Error().Err(err).Msg("no progress: this worker ends")
			os.Exit(exitFailed)
		},
	}
	nats.Name, nats.Wait, nats.Log = "surprisal worker", true, log
	if err := cfg.Check(); err != nil { // before it waits for a server
		return err
	}
	pprof, _ := f.GetBool("pprof")
	p := newProbes()
	cfg.Metrics = p.metrics
	stop, err := p.serve(metrics.ServerConfig{Address: str("metrics-addr"), Pprof: pprof}, log)
	if err != nil {
		return err
	}
	sampler := telemetry.Start(telemetry.Config{UUID: cfg.GPUUUID(), Log: log})
	defer sampler.Close()
	sampler.Register(p.metrics.Set)
	if cfg.GPUUUID() != "" {
		sampler.Await(fetch)
	}
	cfg.Telemetry = sampler
	if cfg.Traces, err = traces.New(work, "surprisal-worker", version, log); err != nil {
		return errors.Join(err, stop())
	}
	defer cfg.Traces.Close()
	return errors.Join(take(fetch, work, nats, cfg, p), stop())
}

// take connects and takes jobs until it is to end.
func take(fetch, work context.Context, nats conn.Config, cfg worker.Config, p *probes) error {
	client, err := jobs.Connect(fetch, nats)
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
	return w.Run(fetch, work)
}

func logger(format, level string) (zerolog.Logger, error) {
	lv, err := zerolog.ParseLevel(level)
	if err != nil {
		return zerolog.Logger{}, usageError{fmt.Errorf("--log-level %q is not one of debug, info, warn, error", level)}
	}
	tty := term.IsTerminal(int(os.Stderr.Fd()))
	var out io.Writer = os.Stderr
	switch {
	case format == "console" || (format == "auto" && tty):
		out = zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.TimeOnly, NoColor: !tty}
	case format == "json" || format == "auto":
	default:
		return zerolog.Logger{}, usageError{fmt.Errorf("--log-format %q is not one of auto, console, json", format)}
	}
	return zerolog.New(out).Level(lv).With().Timestamp().Logger(), nil
}

// printEngines is what a dispatcher asks for before it starts workers here.
func printEngines(w io.Writer) error {
	type device struct {
		Ordinal int    `json:"gpu"`
		Name    string `json:"name"`
		Memory  int64  `json:"memory_bytes"`
		Compute string `json:"compute_capability"`
	}
	out := struct {
		Engines []score.EngineKind `json:"engines"`
		GPUs    []device           `json:"gpus"`
		NoGPU   string             `json:"no_gpu,omitempty"` // why there are none
		Version string             `json:"version"`
	}{worker.Engines(), []device{}, "", version}
	gpus, err := worker.GPUs()
	if err != nil {
		out.NoGPU = err.Error()
	}
	for _, g := range gpus {
		out.GPUs = append(out.GPUs, device{g.Ordinal, g.Name, g.Memory, fmt.Sprintf("%d.%d", g.Major, g.Minor)})
	}
	return json.NewEncoder(w).Encode(out)
}
