package worker

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/jobs/simnats"
	"surprisal/internal/score"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/testkit/long"
)

var simSeed = flag.Uint64("seed", 0, "TestSimulation: replay this seed, with -v its trace")

// TestSimulation runs dispatchers and workers, the real ones, on a simulated
// server in virtual time, one run a seed, through whatever the seed has befall
// them, and checks what is left. SURPRISAL_SIM_SEEDS is how many seeds.
//
// It finds what no one thought of. What is known to break things has a test of its
// own, in internal/jobs (TestTrap..., TestNoHeartbeatAfterNak, TestReaperKeeps...,
// TestRevive...) and internal/dispatch (TestFilesDecide, TestPauseCancelRetry), and
// those, not this, are what a change to either is to be held to: a seed comes upon
// few of them.
func TestSimulation(t *testing.T) {
	seeds := 60
	switch {
	case long.Wanted:
		seeds = 200
	case testing.Short():
		seeds = 20
	}
	if s := os.Getenv("SURPRISAL_SIM_SEEDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("SURPRISAL_SIM_SEEDS: %v", err)
		}
		seeds = n
	}
	first := uint64(1)
	if *simSeed != 0 {
		first, seeds = *simSeed, 1
	}
	simulate(t, func(t *testing.T, in *simInput) {
		for seed := first; seed < first+uint64(seeds); seed++ {
			if trace := runSeed(t, in, seed); *simSeed != 0 {
				t.Log("\n" + trace)
			}
		}
	})
}

// TestSimulationReplays: a seed's history is the same each time, to the last event,
// but for the order of what happens in one instant. That is so because every
// message's fate and time is drawn by seed, sender and how many of its kind went
// before, and because no two of them arrive in the same instant. Left to Go's
// scheduler is which of two goroutines that wake in one instant is first, as when
// a frozen process goes on. It parts a history where a crash is to come between
// the two: about one seed in a hundred, so one of these may.
func TestSimulationReplays(t *testing.T) {
	const seeds = 10
	var first, again []string
	for _, traces := range []*[]string{&first, &again} {
		simulate(t, func(t *testing.T, in *simInput) {
			for seed := uint64(1); seed <= seeds; seed++ {
				*traces = append(*traces, runSeed(t, in, seed))
			}
		})
	}
	same := 0
	for i := range first {
		a, b := strings.Split(first[i], "\n"), strings.Split(again[i], "\n")
		slices.Sort(a) // what happened in one instant has no order
		slices.Sort(b)
		if slices.Equal(a, b) {
			same++
			continue
		}
		for k := range min(len(a), len(b)) {
			if a[k] != b[k] {
				t.Logf("seed %d parts at event %d of %d:\n%s\n%s", i+1, k, len(a), a[k], b[k])
				break
			}
		}
	}
	t.Logf("%d of %d histories are the same to the last event", same, seeds)
	if raceEnabled {
		return // the race detector has Go's scheduler choose at random on purpose
	}
	if same < seeds-1 {
		t.Errorf("%d of %d histories are the same: a seed does not replay", same, seeds)
	}
}

// simSlot is how much of virtual time each seed has for itself: its history begins
// at the same instant, whichever seeds came before.
const simSlot = 48 * time.Hour

// simulate has do run in virtual time.
func simulate(t *testing.T, do func(*testing.T, *simInput)) {
	in := newSimInput(t)
	// One bubble for all seeds: compressors are kept in a pool, and what one bubble
	// makes another may not use. So there is one in a process, and no parallel test.
	runtime.GC()
	runtime.GC() // which empties the pools of what came before
	// What several goroutines do in one instant they do in the same order then.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) { do(t, in) })
	runtime.GC()
	runtime.GC()
}

// runSeed gives the trace.
func runSeed(t *testing.T, in *simInput, seed uint64) (trace string) {
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(seed) * simSlot)
	time.Sleep(time.Until(start))
	s := newSimulation(t, in, seed)
	s.run()
	trace = s.trace()
	if s.failed {
		file := filepath.Join(os.TempDir(), fmt.Sprintf("surprisal-seed-%d.trace", seed))
		if err := os.WriteFile(file, []byte(trace+"\n"+s.log.String()), 0o666); err != nil {
			t.Log(err)
		}
		t.Errorf("seed %d: trace and log are in %s; again: "+
			"go test ./internal/worker -run 'TestSimulation$' -seed %d -v", seed, file, seed)
	}
	if err := os.RemoveAll(s.m.Out); err != nil {
		t.Error(err)
	}
	return trace
}

// simInput is what all seeds score: files of ready-made ids.
type simInput struct{ dir, model string }

const simIDs = "ids32"

func newSimInput(t *testing.T) *simInput {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	in := &simInput{dir: t.TempDir(), model: t.TempDir()}
	at := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	copyTo := func(to string, from ...string) {
		b, err := os.ReadFile(filepath.Join(from...))
		if err == nil {
			err = os.WriteFile(to, b, 0o666)
		}
		if err == nil {
			err = os.Chtimes(to, at, at)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a.parquet", "b.parquet"} {
		copyTo(filepath.Join(in.dir, name), "..", "shard", "testdata", "ids-v1.parquet")
	}
	copyTo(filepath.Join(in.model, "training_metadata.json"), "..", "..", "examples", "demo", "model",
		"training_metadata.json")
	if err := os.WriteFile(filepath.Join(in.model, "model-ckpt.pth"), []byte("weights"), 0o666); err != nil {
		t.Fatal(err)
	}
	return in
}

// simulation is one seed's run.
type simulation struct {
	t      *testing.T
	seed   uint64
	start  time.Time
	rand   *rand.Rand // of what was decided before anything ran
	net    *simnats.Net
	req    dispatch.Request
	m      *score.Manifest
	top    record.RunConfig
	faults simnats.Faults
	poison int32 // the engine fails on a batch with this id in it; 0: none
	killer int32 // the process dies of it
	flaky  float64
	log    logBuf

	ctx    context.Context
	cancel context.CancelFunc
	actors sync.WaitGroup
	over   chan struct{} // closed when the dispatcher has summed up
	calm   chan struct{} // closed when nothing new befalls anyone any more
	done   chan *dispatch.Summary

	mu      sync.Mutex
	workers []*process
	disp    *process
	crashes int
	records sync.Mutex
	wrong   []string // what the records' history has that must not be
	history map[string]record.Job
	failed  bool
}

func (s *simulation) bad(format string, a ...any) {
	s.failed = true
	s.t.Errorf("seed %d: %s", s.seed, fmt.Sprintf(format, a...))
}

// logBuf keeps a log.
type logBuf struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuf) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuf) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// virtualClock stamps log lines as the trace is.
type virtualClock struct{ start time.Time }

func (c virtualClock) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str("at", time.Since(c.start).String())
}

func newSimulation(t *testing.T, in *simInput, seed uint64) *simulation {
	r := rand.New(rand.NewPCG(seed, 0))
	s := &simulation{
		t: t, seed: seed, start: time.Now(), rand: r, over: make(chan struct{}), calm: make(chan struct{}),
		done:    make(chan *dispatch.Summary, 8),
		history: map[string]record.Job{},
	}
	some := func(p, most float64) float64 { // zero, or up to most
		if r.Float64() < p {
			return r.Float64() * most
		}
		return 0
	}
	s.faults = simnats.Faults{
		Latency: 20 * time.Millisecond, Slow: some(.5, .05), SlowLatency: time.Duration(r.IntN(60)) * time.Second,
		Request: some(.5, .05), Reply: some(.6, .1), Signal: some(.5, .3), Delivery: some(.5, .1),
		Advisory: some(.3, 1),
	}
	s.top = record.RunConfig{AckWait: time.Duration(5+r.IntN(26)) * time.Second, MaxAttempts: 2 + r.IntN(4),
		MaxLost: 2 + r.IntN(4)}
	if r.IntN(4) == 0 {
		s.top.MaxDeliver = 2 + r.IntN(6)
	}
	if r.IntN(4) == 0 {
		s.top.MaxAckPending = 1 + r.IntN(4)
	}
	pick := func(one int) int32 {
		if r.IntN(one) == 0 {
			return int32(31 * (2 + 6*r.IntN(40))) // a row's first id, as make_fixtures.py makes it
		}
		return 0
	}
	s.poison, s.killer, s.flaky = pick(3), pick(6), some(.4, .25)
	s.req = dispatch.Request{
		Inputs: []string{in.dir}, Out: simOut(t), ModelDir: in.model, JobTokens: int64(60 + r.IntN(200)),
		Program: "sim",
		Options: score.Options{IDsColumn: simIDs, Long: score.LongCarry, MaxLength: 2048, Special: score.SpecialText,
			Engine: score.EngineCPU},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var err error
	if s.m, _, err = dispatch.Plan(s.ctx, s.req); err != nil {
		t.Fatal(err)
	}
	s.m.Run = fmt.Sprint("sim-", seed) // so that job ids are the same each time
	if err := outdir.WriteManifest(s.ctx, s.m.Out, s.m); err != nil {
		t.Fatal(err)
	}
	s.net = simnats.New(seed, s.faults)
	s.net.OnStored(s.stored)
	return s
}

// simOut is a folder in memory, where there is one: disks that sync are slow.
func simOut(t *testing.T) string {
	dir := t.TempDir()
	if shm, err := os.MkdirTemp("/dev/shm", "surprisal-sim-"); err == nil {
		dir = shm
	}
	return dir
}

// logger is a process's.
func (s *simulation) logger(name string) zerolog.Logger {
	return zerolog.New(&s.log).Hook(virtualClock{s.start}).With().Str("proc", name).Logger()
}

// Virtual time: faults end by themselves after stormy, and a run that is not over
// by simDeadline never will be.
const (
	stormy      = 30 * time.Minute
	simDeadline = 6 * time.Hour
)

func (s *simulation) run() {
	defer func() {
		s.net.End()
		s.cancel()
		s.actors.Wait()
	}()
	for i := range 1 + s.rand.IntN(4) {
		s.actors.Go(func() { s.worker(i) })
	}
	s.actors.Go(s.dispatcher)
	if s.rand.IntN(4) == 0 {
		s.actors.Go(s.watcher)
	}
	s.actors.Go(s.chaos)
	var sum *dispatch.Summary
	late := time.NewTimer(simDeadline)
	defer late.Stop()
	select {
	case sum = <-s.done:
	case <-late.C:
		stacks := make([]byte, 1<<20)
		_, _ = s.log.Write(stacks[:runtime.Stack(stacks, true)])
		s.bad("the run is not over after %s", simDeadline)
		return
	}
	close(s.over)
	<-s.calm
	s.net.Note("test", "calm", "", "")
	s.net.SetFaults(simnats.Faults{Latency: 20 * time.Millisecond})
	s.settleDown()
	s.check(sum)
}

// settleDown lets the queue come to rest: deliveries whose ack was lost, messages
// that hit MaxDeliver.
func (s *simulation) settleDown() {
	c := s.net.Conn("sweeper")
	log := s.logger("sweeper")
	client := jobs.New(conn.Wrap(c, log), c.JetStream(), conn.Config{Log: log})
	defer client.Close()
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Minute)
	defer cancel()
	var reaper sync.WaitGroup
	reaper.Go(func() { _ = client.Reap(ctx) }) // ends with ctx
	for {
		select {
		case <-time.After(30 * time.Second):
		case <-ctx.Done():
			s.bad("the queue does not empty: %+v", s.queue(client))
			reaper.Wait()
			return
		}
		if q := s.queue(client); q.Messages == 0 {
			cancel()
			reaper.Wait()
			return
		}
	}
}

func (s *simulation) queue(client *jobs.Client) jobs.QueueInfo {
	q, err := client.Queue(s.ctx)
	if err != nil {
		s.bad("%v", err)
	}
	return q
}

func (s *simulation) trace() string {
	var b bytes.Buffer
	for _, e := range s.net.Events() {
		fmt.Fprintf(&b, "%16.9f %-16s %s %s %s\n", e.At.Seconds(), e.Actor, e.Op, e.Key, e.Comes)
	}
	return b.String()
}

// sleep waits; false when the simulation is over.
func (s *simulation) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}
