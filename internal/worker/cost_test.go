package worker

import (
	"context"
	"math"
	"os/exec"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/dispatch"
	"surprisal/internal/gpu/telemetry"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/embedded"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// TestCost: committed jobs are charged with all that came together while there was
// work in hand, and with nothing else; what is not known is absent.
func TestCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, known := time.Now(), true
		// 100 W, always
		c := cost{energy: func() (float64, bool) { return 1000 + 100*time.Since(began).Seconds(), known }}
		charge := func(seconds, joules float64) {
			t.Helper()
			var sum record.Totals
			c.charge(&sum)
			if sum.GPUSeconds == nil || math.Abs(*sum.GPUSeconds-seconds) > 1e-6 {
				t.Errorf("charged %v s, want %g", sum.GPUSeconds, seconds)
			}
			switch {
			case joules < 0 && sum.Joules != nil:
				t.Errorf("charged %g J that are not known", *sum.Joules)
			case joules >= 0 && (sum.Joules == nil || math.Abs(*sum.Joules-joules) > 1e-6):
				t.Errorf("charged %v J, want %g", sum.Joules, joules)
			}
		}
		time.Sleep(time.Hour) // idle
		c.work(true)
		time.Sleep(3 * time.Second)
		charge(3, 300)
		time.Sleep(2 * time.Second) // a job that failed
		c.work(true)
		time.Sleep(time.Second)
		charge(3, 300)
		c.work(false)
		time.Sleep(time.Hour)
		c.work(true)
		time.Sleep(time.Second)
		known = false // NVML goes down, and comes back
		charge(1, -1)
		time.Sleep(time.Second)
		known = true
		charge(1, -1)
		time.Sleep(time.Second)
		charge(1, 100)
	})
	var none cost // of a worker without a GPU
	var sum record.Totals
	none.work(true)
	none.charge(&sum)
	if sum.Joules != nil || sum.GPUSeconds != nil {
		t.Error("a CPU worker's jobs are charged")
	}
}

// calmEngine scores by simNLL, and nothing befalls it.
type calmEngine struct{ simEngine }

// Forward fills the scores.
func (*calmEngine) Forward(_ context.Context, b *score.Batch) error {
	for i, id := range b.IDs {
		b.NLL[i] = simNLL(id, b.Targets[i])
	}
	return nil
}

// TestJobsAreCharged: a job's record has its GPU's time and energy, and the worker's
// record a sample of the GPU, of an NVML that draws 250.5 W.
func TestJobsAreCharged(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("SKIPPED: needs a C compiler, cc")
	}
	lib := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-o", lib,
		"../gpu/telemetry/testdata/nvml.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sampler := telemetry.Start(telemetry.Config{UUID: "0a1b2c3d-0000-1111-2222-333344445555", Library: lib})
	defer sampler.Close()
	for sampler.Now() == nil {
		time.Sleep(time.Millisecond)
	}
	in := newSimInput(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	srv, err := embedded.Start(ctx, embedded.Config{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Shutdown()
	client, err := jobs.Connect(ctx, conn.Config{URLs: []string{srv.URL()}, Token: srv.Token(),
		Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	sub, err := dispatch.Begin(ctx, dispatch.Request{
		Inputs: []string{in.dir + "/a.parquet"}, Out: t.TempDir(), ModelDir: in.model, JobTokens: 20,
		Options: score.Options{IDsColumn: simIDs, Long: score.LongCarry, MaxLength: 2048, Special: score.SpecialText,
			Engine: score.EngineCPU},
	}, 0, zerolog.Nop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Release()
	if err := sub.Queue(ctx, client, dispatch.QueueOptions{}); err != nil || sub.Queued == 0 {
		t.Fatal(sub.Queued, err)
	}
	w, err := New(client, Config{Engine: score.EngineCPU, Telemetry: sampler})
	if err != nil {
		t.Fatal(err)
	}
	w.cost.energy = sampler.Energy // as if it scored on that GPU
	w.models.open = func(context.Context, *score.Job) (Engine, error) {
		time.Sleep(1500 * time.Millisecond) // a load, which costs too
		return new(calmEngine), nil
	}
	fetch, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.Run(fetch, ctx) }()
	var sum record.Totals
	var joules, seconds float64
	for n := 0; n < sub.Queued && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		n, joules, seconds = 0, 0, 0
		if err := client.JobStates(ctx, sub.Manifest.Run, func(s record.Job) {
			if s.State == record.StateDone && s.Totals.Joules != nil && s.Totals.GPUSeconds != nil {
				n, sum = n+1, *s.Totals
				joules, seconds = joules+*sum.Joules, seconds+*sum.GPUSeconds
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if seconds < 1.5 || math.Abs(joules-250.5*seconds) > .1*250.5*seconds {
		t.Errorf("%g J in %g s of a GPU that draws 250.5 W", joules, seconds)
	}
	workers, err := client.Workers(ctx)
	// it signs beside its work
	for ; err == nil && len(workers) == 0 && ctx.Err() == nil; workers, err = client.Workers(ctx) {
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil || len(workers) != 1 || workers[0].GPU == nil {
		t.Fatalf("%+v, %v", workers, err)
	}
	g := workers[0].GPU
	if g.Name != "NVIDIA Test" || g.Index != 5 || *g.Power != 250.5 || *g.Utilization != .42 || *g.Temperature != 44 ||
		g.MemoryUsed != nil || g.PowerLimit != nil {
		t.Errorf("%+v", g)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestEfficiency(t *testing.T) {
	var e efficiency
	at := time.Now()
	var perSecond, perJoule float64
	for i := range 60 {
		rate := int64(1000)
		if i > 30 {
			rate = 4000
		}
		tokens := int64(0)
		if len(e.looks) > 0 {
			tokens = e.looks[len(e.looks)-1].tokens + rate
		}
		perSecond, perJoule = e.add(look{at: at.Add(time.Duration(i) * time.Second), tokens: tokens,
			joules: float64(i) * 500, known: true})
	}
	if perSecond != 4000 || perJoule != 8 || len(e.looks) > 12 {
		t.Errorf("%g tokens/s, %g tokens/J, %d looks kept", perSecond, perJoule, len(e.looks))
	}
	if _, perJoule = e.add(look{at: at.Add(time.Hour)}); perJoule >= 0 {
		t.Errorf("%g tokens/J of energy that is not known", perJoule)
	}
}
