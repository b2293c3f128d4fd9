package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/metrics"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/store"
	"surprisal/internal/traces"
)

// Config sets a worker up.
type Config struct {
	ID           string           // [a-z0-9-]; default host, pid and a random part
	Engine       score.EngineKind // which engine it has; jobs for another are declined. Default auto
	GPU          int              // ordinal among the visible ones, of the CUDA engine
	Tokenizer    string           // used instead of the path a job names; its bytes must be the job's
	Threads      int              // cores for tokenizing and the CPU engine; default all
	BatchTokens  int              // token budget of a batch; default the engine's
	InFlight     int              // jobs in hand at most; default 4
	AllowInput   []string         // folders and URL prefixes that jobs may read; none: any
	AllowOutput  []string         // folders and URL prefixes that jobs may write; none: any
	AllowModel   []string         // folders and URL prefixes of models and tokenizers; none: any
	DrainTimeout time.Duration    // how long a drain may take before jobs are given back; default 20 s
	StallAfter   time.Duration    // a job without progress for so long is given up; default 10 min
	Program      string           // version, for outputs
	Metrics      *metrics.Worker  // counts what is done; default its own, which nobody reads
	Traces       *traces.Tracer   // makes spans of jobs; nil: none
	Telemetry    Telemetry        // of the GPU that it scores on; nil: nothing is known
	// Stalled is called when a job made no progress for StallAfter: the engine
	// hangs, perhaps where no context reaches, so the process should end.
	Stalled func(error)
	Log     zerolog.Logger
}

func (c Config) withDefaults() Config {
	if c.ID == "" {
		c.ID = newID()
	}
	if c.Engine == "" {
		c.Engine = score.EngineAuto
	}
	if c.Threads <= 0 {
		c.Threads = runtime.GOMAXPROCS(0)
	}
	if c.InFlight <= 0 {
		c.InFlight = 4
	}
	if c.DrainTimeout <= 0 {
		c.DrainTimeout = 20 * time.Second
	}
	if c.StallAfter <= 0 {
		c.StallAfter = 10 * time.Minute
	}
	if c.Metrics == nil {
		c.Metrics = metrics.NewWorker(c.Program)
	}
	if c.Stalled == nil {
		c.Stalled = func(error) {}
	}
	return c
}

// Check refuses an engine that is not here; the error matches ErrEngine.
func (c Config) Check() error {
	_, err := resolveEngine(c.withDefaults().Engine, c.GPU)
	return err
}

// GPUUUID is that of the GPU that the worker scores on, without its prefix; empty
// for the CPU, and where the driver does not tell.
func (c Config) GPUUUID() string {
	kind, err := resolveEngine(c.withDefaults().Engine, c.GPU)
	if err != nil || kind != score.EngineCUDA {
		return ""
	}
	list, err := gpus()
	if err != nil {
		return ""
	}
	return list[c.GPU].UUID
}

// newID makes an id that people recognise and that no other worker has.
func newID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	clean := func(r rune) rune {
		if (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9') {
			return r
		}
		return '-'
	}
	host = strings.Trim(strings.Map(clean, strings.ToLower(host)), "-")
	if host == "" {
		host = "host"
	}
	return fmt.Sprintf("%.36s-%d-%s", host, os.Getpid(), strings.ToLower(rand.Text()[:6]))
}

// Worker takes jobs from any run, scores them and commits their scores.
type Worker struct {
	cfg    Config
	client *jobs.Client
	models models
	log    zerolog.Logger
	meter  *metrics.Worker
	idle   *idle
	cost   cost
	// inputs and outputs are where jobs may read and write; nil: anywhere.
	inputs, outputs *store.Fence
	opener          shard.Opener // of all sessions' jobs

	consumer   atomic.Pointer[jobs.Consumer] // once it takes jobs
	drains     atomic.Bool                   // it takes no more
	started    time.Time
	jobsDone   atomic.Int64
	tokensDone atomic.Int64
	forwarded  atomic.Int64 // tokens that went through the engine
	tasks      taskSet
}

// New makes a worker on a connected client.
func New(client *jobs.Client, cfg Config) (*Worker, error) {
	cfg = cfg.withDefaults()
	kind, err := resolveEngine(cfg.Engine, cfg.GPU)
	if err != nil {
		return nil, err
	}
	w := &Worker{cfg: cfg, client: client, started: time.Now(), log: cfg.Log.With().Str("worker", cfg.ID).Logger()}
	if kind == score.EngineCUDA {
		w.log = w.log.With().Int("gpu", cfg.GPU).Logger()
	}
	w.meter, w.idle = cfg.Metrics, newIdle(cfg.Metrics)
	if kind == score.EngineCUDA {
		w.cost.energy = func() (float64, bool) { return 0, false }
		if cfg.Telemetry != nil {
			w.cost.energy = cfg.Telemetry.Energy
		}
	}
	w.tasks.working = w.cost.work
	w.models = models{cfg: cfg, kind: kind, log: w.log}
	w.models.open = w.models.openEngine
	w.meter.BeforeScrape(func() {
		w.idle.settle()
		_, _, ackWait := w.inHand()
		w.meter.AckWait(ackWait)
	})
	w.meter.Live(func() int { n, _, _ := w.inHand(); return n }, func() time.Duration {
		_, age,
			_ := w.inHand()
		return age
	})
	for _, f := range []struct {
		fence  **store.Fence
		flag   string
		places []string
	}{{&w.inputs, "allow-input", cfg.AllowInput}, {&w.outputs, "allow-output", cfg.AllowOutput},
		{&w.models.fence, "allow-model", cfg.AllowModel}} {
		if *f.fence, err = store.NewFence(f.flag, f.places); err != nil {
			w.closeFences()
			return nil, fmt.Errorf("%w: %w", ErrAllow, err)
		}
	}
	return w, nil
}

// ErrAllow: a folder that jobs are to be confined to can't be opened.
var ErrAllow = errors.New("jobs can't be confined")

func (w *Worker) closeFences() {
	for _, f := range []*store.Fence{w.inputs, w.outputs, w.models.fence} {
		if err := f.Close(); err != nil {
			w.log.Warn().Err(err).Msg("folder not closed")
		}
	}
}

// admit refuses a job that names a place outside of those allowed, before any is
// opened.
func (w *Worker) admit(j *score.Job) error {
	if err := w.inputs.Check(j.Input.Path); err != nil {
		return fmt.Errorf("input %w", err)
	}
	if err := w.outputs.Check(j.Out); err != nil {
		return fmt.Errorf("output folder %w", err)
	}
	return w.models.admit(j)
}

// Run takes jobs until fetch ends, then finishes what is in hand and returns
// nil. When work ends, or the drain takes longer than DrainTimeout, it gives
// back what is in hand. It returns an error when the engine fails or the
// connection is closed for good.
func (w *Worker) Run(fetch, work context.Context) error {
	defer w.closeFences()
	defer w.models.close()
	work, cancel := context.WithCancelCause(work)
	defer cancel(nil)
	fetch, stop := context.WithCancelCause(fetch)
	defer stop(nil)
	late := context.AfterFunc(fetch, func() {
		w.drains.Store(true)
		select {
		case <-time.After(w.cfg.DrainTimeout):
			cancel(errDrainTimeout)
		case <-work.Done():
		}
	})
	defer late()
	engine, device := w.models.describe()
	consumer, err := w.client.NewConsumer(work, jobs.ConsumerConfig{
		Worker: w.cfg.ID, Engine: engine, Device: device, StallAfter: w.cfg.StallAfter, Meter: w.meter, Log: w.log,
	})
	if err != nil {
		return fmt.Errorf("take jobs: %w", err)
	}
	err = w.client.ListenDrain(w.cfg.ID, func() {
		w.log.Info().Msg("asked to drain: no more jobs are taken, those in hand are finished")
		stop(nil)
	})
	if err != nil {
		return fmt.Errorf("take jobs: %w", err)
	}
	ready := w.log.Info().Str("engine", engine).Str("device", device)
	if uuid := w.cfg.GPUUUID(); uuid != "" {
		ready = ready.Str("gpu_uuid", uuid)
	}
	ready.Msg("worker is ready")
	w.consumer.Store(consumer)
	g, gctx := errgroup.WithContext(work)
	g.Go(func() error {
		defer cancel(nil) // ends the others
		return w.sessions(fetch, gctx, consumer)
	})
	g.Go(func() error { return w.signsOfLife(gctx, fetch) })
	g.Go(func() error {
		select {
		case <-w.client.Closed():
			if err := w.client.Err(); err != nil {
				return fmt.Errorf("queue: %w", err)
			}
		case <-gctx.Done():
		}
		return nil
	})
	err = g.Wait()
	if errors.Is(context.Cause(work), errDrainTimeout) {
		w.log.Warn().Dur("after", w.cfg.DrainTimeout).Msg("drain took too long: jobs in hand were given back")
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

var errDrainTimeout = errors.New("drain took too long")

// inHand asks the consumer, where there is one yet.
func (w *Worker) inHand() (n int, heartbeat, ackWait time.Duration) {
	if k := w.consumer.Load(); k != nil {
		return k.InHand()
	}
	return 0, 0, 0
}

// Unready says why the worker takes no jobs now, a line each; nothing when it does.
func (w *Worker) Unready() []string {
	var why []string
	if !w.client.Connected() {
		why = append(why, "no NATS server answers")
	}
	if w.consumer.Load() == nil {
		why = append(why, "waiting for a dispatcher to set the queue up")
	}
	if w.drains.Load() {
		why = append(why, "draining: no more jobs are taken")
	}
	return why
}

// sessions serves one model after another, each for as long as jobs ask for it.
func (w *Worker) sessions(fetch, work context.Context, consumer *jobs.Consumer) error {
	var lease *jobs.Lease
	for {
		if lease == nil {
			w.idle.because(metrics.CauseNoJob)
			var err error
			if lease, err = consumer.Next(fetch, work); err != nil {
				return ended(fetch, err)
			}
		}
		log := w.log.With().Str("run", lease.Job.Run).Str("job", lease.Job.ID).Logger()
		w.models.moved = lease.Progress
		w.idle.because(metrics.CauseLoading)
		w.cost.work(true)
		m, err := w.load(work, &lease.Job)
		if err != nil {
			w.refuse(work, lease, err, log)
			w.cost.work(false)
			lease = nil
			continue
		}
		s := newSession(w, consumer, m)
		if lease, err = s.run(fetch, work, lease); err != nil {
			return ended(work, err)
		}
	}
}

func (w *Worker) load(ctx context.Context, j *score.Job) (*loaded, error) {
	if err := w.admit(j); err != nil {
		return nil, err
	}
	return w.models.load(ctx, j)
}

// ended is nil for an error that is only ctx's end told on.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
		return context.Canceled
	}
	return err
}

// refuse settles a job whose model can't be loaded here; the lease logs what becomes
// of it.
func (w *Worker) refuse(ctx context.Context, lease *jobs.Lease, err error, log zerolog.Logger) {
	ctx, cancel := settleContext(ctx)
	defer cancel()
	var settle error
	switch {
	case ctx.Err() != nil || errors.Is(err, context.Canceled):
		settle = lease.Abandon(ctx)
	case errors.Is(err, store.ErrOutside):
		settle = lease.Fail(ctx, err)
	case errors.Is(err, ErrEngine):
		settle = lease.Decline(ctx, err.Error())
	default:
		settle = lease.Retry(ctx, err)
	}
	if settle != nil {
		log.Warn().Err(settle).AnErr("cause", err).Msg("job not settled: it is delivered again after its ack wait")
	}
}

// settleTimeout bounds what is told to the queue when a worker is already ending.
const settleTimeout = 5 * time.Second

// settleContext outlives ctx, so that a job can be given back after an abort.
func settleContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
}

// signEvery is how often a worker shows what it does; people watch it.
const signEvery = time.Second

// signsOfLife keeps the worker's record current.
func (w *Worker) signsOfLife(ctx, fetch context.Context) error {
	tick := time.NewTicker(signEvery)
	defer tick.Stop()
	lastTokens, lastAt := int64(0), time.Now()
	var e efficiency
	for {
		rec := w.record()
		rec.Draining = fetch.Err() != nil
		if dt := time.Since(lastAt).Seconds(); dt > 0 {
			rec.TokensPerSec = float64(rec.TokensDone-lastTokens) / dt
		}
		lastTokens, lastAt = rec.TokensDone, time.Now()
		w.measure(&e)
		if err := w.client.PutWorker(ctx, rec); err != nil && ctx.Err() == nil {
			w.log.Debug().Err(err).Msg("worker record not written")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		if ctx.Err() == nil {
			continue
		}
		bye, cancel := settleContext(ctx)
		defer cancel()
		if err := w.client.RemoveWorker(bye, w.cfg.ID); err != nil {
			w.log.Debug().Err(err).Msg("worker record not removed")
		}
		return nil
	}
}

// record is what the worker does now.
func (w *Worker) record() record.Worker {
	host, _ := os.Hostname() // for people
	rec := record.Worker{
		ID: w.cfg.ID, Host: host, PID: os.Getpid(), Version: w.cfg.Program, Started: w.started,
		JobsDone: w.jobsDone.Load(), TokensDone: w.tokensDone.Load(), Progress: w.tasks.progress(),
		GPU: w.sampleGPU(),
	}
	rec.Engine, rec.Device = w.models.describe()
	return rec
}

// stalled tells of an engine that hangs, before the process ends.
func (w *Worker) stalled(err error) {
	rec := w.record()
	rec.Stalled = err.Error()
	ctx, cancel := settleContext(context.Background())
	defer cancel()
	if perr := w.client.PutWorker(ctx, rec); perr != nil {
		w.log.Debug().Err(perr).Msg("worker record not written")
	}
	w.cfg.Stalled(err)
}
