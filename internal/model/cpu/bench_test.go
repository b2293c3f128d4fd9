package cpu

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"surprisal/internal/score"
)

const demo = "../../../examples/demo"

// demoLengths are the token counts of the demo corpus's documents.
func demoLengths(b *testing.B) []int {
	raw, err := os.ReadFile(filepath.Join(demo, "expected.json"))
	if err != nil {
		b.Fatal(err)
	}
	var docs []struct {
		Tokens int `json:"n_tokens"`
	}
	if err := json.Unmarshal(raw, &docs); err != nil {
		b.Fatal(err)
	}
	var n []int
	for _, d := range docs {
		if d.Tokens > 0 {
			n = append(n, d.Tokens)
		}
	}
	return n
}

// packed gives batches of at most budget tokens of documents of these lengths,
// with random ids; what does not fit a batch is cut off.
func packed(vocab, budget int, lengths []int, batches int) []*score.Batch {
	r := rand.New(rand.NewPCG(1, 2))
	var out []*score.Batch
	b := &score.Batch{}
	for i := 0; len(out) < batches; i++ {
		n := min(lengths[i%len(lengths)], budget-len(b.IDs))
		ids := make([]int32, n)
		for j := range ids {
			ids[j] = int32(r.IntN(vocab))
		}
		b.Append(ids, ids, nil)
		if len(b.IDs) == budget {
			b.Alloc()
			out = append(out, b)
			b = &score.Batch{}
		}
	}
	return out
}

// TestFlops holds the model's count to the products that this engine makes.
func TestFlops(t *testing.T) {
	c := open(t, filepath.Join(demo, "model"), Config{}).model
	kd, vd := c.Heads*c.K, c.VHeads*c.V
	layer := c.Width*columnsOf(c).total + c.V*(kd+vd) + vd*c.Width + 3*c.Width*c.Inner
	if got, want := c.Flops(), 2*float64(c.Layers*layer+c.Width*c.VocabSize); got != want {
		t.Fatalf("%g floating-point operations a token, the engine's products make %g", got, want)
	}
}

// cpuTime is what the process has used of its cores, for machines that are shared.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sgemmRate is the library's rate in GFLOP/s on all of an engine's cores, each
// with a product of its own of the demo's commonest shape.
func sgemmRate(e *Engine, d time.Duration) float64 {
	const rows, in, out = 240, 192, 1024
	var m memory
	defer m.free()
	type job struct{ a, c []float32 }
	w, jobs := m.matrix(e.set, in, out), make([]job, len(e.workers))
	for i := range jobs {
		jobs[i] = job{m.floats(rows * in), m.floats(rows * out)}
	}
	best := 0.0
	for start := time.Now(); time.Since(start) < d; {
		const times = 20
		at := time.Now()
		e.parallel(len(jobs), func(_ *worker, i int) {
			for range times {
				w.mulTo(jobs[i].c, out, jobs[i].a, in, rows, false)
			}
		})
		best = max(best, 2*rows*in*out*times*float64(len(jobs))/time.Since(at).Seconds()/1e9)
	}
	return best
}

// BenchmarkForward scores batches of the demo corpus's lengths with the demo
// model, and gives the rate of its matrix products alone beside it.
func BenchmarkForward(b *testing.B) {
	lengths := demoLengths(b)
	run := func(name string, cfg Config, lengths []int) {
		b.Run(name, func(b *testing.B) {
			e := open(b, filepath.Join(demo, "model"), cfg)
			batches := packed(e.Info().VocabSize, e.Info().MaxTokens, lengths, 4)
			tokens, used := 0, cpuTime()
			e.clock = stageClock{}
			for i := 0; b.Loop(); i++ {
				if err := e.Forward(context.Background(), batches[i%len(batches)]); err != nil {
					b.Fatal(err)
				}
				tokens += len(batches[i%len(batches)].IDs)
			}
			used = cpuTime() - used
			perSecond := float64(tokens) / b.Elapsed().Seconds()
			rate := sgemmRate(e, 300*time.Millisecond)
			b.ReportMetric(perSecond, "tokens/s")
			b.ReportMetric(perSecond*e.model.Flops()/1e9, "GFLOP/s")
			b.ReportMetric(float64(tokens)/used.Seconds(), "tokens/cpu-s")
			b.ReportMetric(rate, "sgemm-GFLOP/s")
			b.ReportMetric(0, "ns/op")
			for stage, d := range e.clock {
				b.ReportMetric(100*d.Seconds()/b.Elapsed().Seconds(), "%"+stageNames[stage])
			}
		})
	}
	for _, n := range []int{1024, 2048, 4096, 8192} {
		run(fmt.Sprintf("demo/tokens=%d", n), Config{MaxTokens: n}, lengths)
	}
	run("one-core", Config{Threads: 1}, lengths)
	run("one-document", Config{}, []int{defaultMaxTokens})
	run("short-documents", Config{}, []int{20, 60, 9, 33})
}

// BenchmarkSgemm gives the library's rate on all cores.
func BenchmarkSgemm(b *testing.B) {
	e := open(b, filepath.Join(demo, "model"), Config{})
	best := 0.0
	for b.Loop() {
		best = max(best, sgemmRate(e, 100*time.Millisecond))
	}
	b.ReportMetric(best, "GFLOP/s")
	b.ReportMetric(0, "ns/op")
}
