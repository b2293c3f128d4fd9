package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/embedded"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// rig is a server, the queue on it, and a dispatcher's client.
type rig struct {
	t   *testing.T
	ctx context.Context
	cfg embedded.Config
	run record.RunConfig // of runs that submit opens
	srv *embedded.Server
	c   *Client
	log logBuf // of all clients; shown when the test fails
}

// newRig starts a server of its own and sets the queue up, with one run.
func newRig(t *testing.T, run record.RunConfig) *rig {
	t.Helper()
	return newRigWith(t, Topology{}, run)
}

func newRigWith(t *testing.T, top Topology, run record.RunConfig) *rig {
	t.Helper()
	t.Parallel()
	// Longer than the default AckWait: a delivery that gets lost on a busy machine comes again.
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	r := &rig{t: t, ctx: ctx, run: run, cfg: embedded.Config{StoreDir: t.TempDir()}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", &r.log)
		}
	})
	r.startServer()
	t.Cleanup(func() { r.srv.Shutdown() })
	r.c = r.client(conn.Config{})
	r.ok(r.c.Setup(ctx, top))
	r.open("run", 0)
	return r
}

func (r *rig) open(run string, priority int) {
	r.t.Helper()
	r.ok(r.c.OpenRun(r.ctx, run, priority, r.run, record.RunConfig{}))
}

// handle is the consumer of the run called run.
func (r *rig) handle() jetstream.Consumer {
	r.t.Helper()
	h, err := r.c.js.Consumer(r.ctx, jobStream, runDurable("run"))
	r.ok(err)
	return h
}

func (r *rig) startServer() {
	r.t.Helper()
	s, err := embedded.Start(r.ctx, r.cfg)
	for err != nil && r.cfg.Port != 0 && strings.Contains(err.Error(), "address already in use") && r.ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond) // somebody else took the port between the two servers, and will let it go
		s, err = embedded.Start(r.ctx, r.cfg)
	}
	r.ok(err)
	r.srv, r.cfg.Port, r.cfg.Token = s, s.Port(), s.Token()
}

func (r *rig) client(cfg conn.Config) *Client {
	r.t.Helper()
	cfg.Timeout = 20 * time.Second // the machine may be busy
	cfg.URLs, cfg.Token, cfg.Name, cfg.Log = []string{r.srv.URL()}, r.srv.Token(), "test", r.log.logger()
	c, err := Connect(r.ctx, cfg)
	r.ok(err)
	r.t.Cleanup(c.Close)
	return c
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) is(err, want error) {
	r.t.Helper()
	if !errors.Is(err, want) {
		r.t.Fatalf("got error %v, want %v", err, want)
	}
}

// quick is a consumer's configuration with short waits. That for a job is long: nats.go
// gives a message the last tenth of it to arrive in, or it is lost until its ack wait ends.
func quick(worker string) ConsumerConfig {
	return ConsumerConfig{
		Worker: worker, FetchWait: 2 * time.Second, RetryDelay: 50 * time.Millisecond,
		BackDelay: 20 * time.Millisecond, SettleTime: 10 * time.Second,
	}
}

// worker is a consumer on a connection of its own.
func (r *rig) worker(cfg ConsumerConfig) (*Consumer, *Client) {
	r.t.Helper()
	cfg.Log = r.log.logger().With().Str("worker", cfg.Worker).Logger()
	c := r.client(conn.Config{})
	k, err := c.NewConsumer(r.ctx, cfg)
	r.ok(err)
	return k, c
}

func (r *rig) submit(jobs []score.Job, epoch uint64, queued, already int) {
	r.t.Helper()
	q, a, err := r.c.Submit(r.ctx, slices.Values(jobs), epoch)
	r.ok(err)
	if q != queued || a != already {
		r.t.Fatalf("submitted: %d queued, %d already; want %d, %d", q, a, queued, already)
	}
	if queued == 0 {
		return
	}
	// The server counts what a run has pending a little after it has acked it, and tests
	// compare counts and who was served in what order.
	r.until("what is queued is counted", func() bool {
		q, err := r.c.RunQueue(r.ctx, jobs[0].Run)
		if errors.Is(err, ErrNoRun) { // nobody counts it
			return true
		}
		r.ok(err)
		held, err := r.c.Holds(r.ctx, jobs[0].Run)
		r.ok(err)
		return q.Pending > 0 || q.AckPending > 0 || !held
	})
}

func (r *rig) next(k *Consumer) *Lease {
	r.t.Helper()
	l, err := k.Next(r.ctx, r.ctx)
	r.ok(err)
	return l
}

// none checks that no job comes within d.
func (r *rig) none(k *Consumer, d time.Duration) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, d)
	defer cancel()
	l, err := k.Next(ctx, r.ctx)
	if err == nil {
		r.t.Fatalf("job %s came, want none", l.Job.ID)
	}
	r.is(err, context.DeadlineExceeded)
}

// until waits for what must become true.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	for !cond() {
		if r.ctx.Err() != nil {
			r.t.Fatalf("never: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (r *rig) queue() QueueInfo {
	r.t.Helper()
	q, err := r.c.Queue(r.ctx)
	r.ok(err)
	return q
}

func (r *rig) empty() {
	r.t.Helper()
	r.until("the queue is empty", func() bool { q := r.queue(); return q.Messages == 0 && q.AckPending == 0 })
}

func (r *rig) state(j score.Job) record.Job {
	r.t.Helper()
	s, err := r.c.jobState(r.ctx, j.Run, j.ID)
	r.ok(err)
	return s
}

func (r *rig) wantState(j score.Job, want record.State, failed, lost int) record.Job {
	r.t.Helper()
	s := r.state(j)
	if s.State != want || s.Failed != failed || s.Lost != lost {
		r.t.Fatalf("job is %s, %d failed, %d lost (%s); want %s, %d, %d", s.State, s.Failed, s.Lost, s.Error, want,
			failed, lost)
	}
	return s
}

func (r *rig) dead(run string) []record.DeadLetter {
	r.t.Helper()
	d, err := r.c.Dead(r.ctx, run)
	r.ok(err)
	return d
}

// vanish ends a worker as SIGKILL does: no more heartbeats, nothing given back.
func vanish(l *Lease) {
	l.settled.Store(true)
	l.stop()
}

func manifest(run string, n int) *score.Manifest {
	m := &score.Manifest{
		Version: score.FormatVersion, Run: run, Created: "2025-01-02T03:04:05Z", Program: "test", Out: "/out",
		Inputs: []string{"/in"},
		Options: score.Options{TextColumn: "text", Long: score.LongCarry, MaxLength: 2048, Special: score.SpecialText,
			Engine: score.EngineAuto},
		Model: score.Model{Dir: "/model", Digest: "sha256:00", Tokenizer: "/model/tokenizer.json",
			TokenizerDigest: "sha256:01"},
	}
	m.ConfigDigest = score.ConfigDigest(m.Options, m.Model)
	if n > 0 {
		f := score.FilePlan{Input: score.Input{Path: "/in/a.parquet", Rel: "a.parquet", Size: 1, Version: "v"},
			Rows: int64(n) * 10}
		for i := range n {
			f.Cuts = append(f.Cuts, int64(i)*10)
		}
		m.Files = append(m.Files, f)
	}
	return m
}

func makeJobs(run string, n int) []score.Job { return manifest(run, n).Jobs() }

// logBuf keeps a log for a test to read.
type logBuf struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuf) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuf) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), s)
}

func (l *logBuf) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuf) logger() zerolog.Logger {
	return zerolog.New(l).Hook(clock{}).Level(zerolog.DebugLevel)
}

var errBoom = fmt.Errorf("boom")

// clock stamps log lines to the millisecond.
type clock struct{}

func (clock) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str("at", time.Now().Format("05.000"))
}
