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

// productRate is the rate of a set's products in GFLOP per second of one core's
// time, in the demo's commonest shape.
func productRate(e *Engine, d time.Duration) float64 {
	const rows, in, out = maxTile, 192, 1024
	var m memory
	defer m.free()
	w, a, c := m.matrix(e.set, in, out), m.floats(rows*in), m.floats(rows*out)
	best := 0.0
	for start := time.Now(); time.Since(start) < d; {
		const times = 50
		used := cpuTime()
		for range times {
			w.mulTo(c, out, a, in, rows, false)
		}
		best = max(best, 2*rows*in*out*times/(cpuTime()-used).Seconds()/1e9)
	}
	return best
}

// BenchmarkForward scores batches of the demo corpus's lengths with the demo model
// in every instruction set. Rates are per second of CPU time, for machines that are
// shared; the products' own rate in the same minute is beside them, and the engine's
// part of it.
func BenchmarkForward(b *testing.B) {
	lengths := demoLengths(b)
	run := func(name string, cfg Config, lengths []int) {
		b.Run(name, func(b *testing.B) {
			e := open(b, filepath.Join(demo, "model"), cfg)
			batches := packed(e.Info().VocabSize, e.Info().MaxTokens, lengths, 4)
			tokens := 0
			rate := productRate(e, 150*time.Millisecond)
			used := cpuTime()
			e.clock = stageClock{}
			for i := 0; b.Loop(); i++ {
				if err := e.Forward(context.Background(), batches[i%len(batches)]); err != nil {
					b.Fatal(err)
				}
				tokens += len(batches[i%len(batches)].IDs)
			}
			used = cpuTime() - used
			rate = max(rate, productRate(e, 150*time.Millisecond))
			perSecond := float64(tokens) / used.Seconds()
			b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
			b.ReportMetric(perSecond, "tokens/cpu-s")
			b.ReportMetric(perSecond*e.model.Flops()/1e9, "GFLOP/cpu-s")
			b.ReportMetric(rate, "sgemm-GFLOP/cpu-s")
			b.ReportMetric(perSecond*e.model.Flops()/1e9/rate, "of-sgemm")
			b.ReportMetric(0, "ns/op")
			for stage, d := range e.clock {
				b.ReportMetric(100*d.Seconds()/b.Elapsed().Seconds(), "%"+stageNames[stage])
			}
		})
	}
	for _, set := range Sets() {
		run("demo/"+set, Config{Set: set}, lengths)
	}
	for _, n := range []int{1024, 4096, 8192} {
		run(fmt.Sprintf("demo/tokens=%d", n), Config{MaxTokens: n}, lengths)
	}
	run("one-core", Config{Threads: 1}, lengths)
	run("one-document", Config{}, []int{defaultMaxTokens})
	run("short-documents", Config{}, []int{20, 60, 9, 33})
}
