package dispatch

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/testkit/queuetest"
)

// spend does n jobs as a worker with a GPU does; joules below 0 are not known.
func (b *bench) spend(k *jobs.Consumer, n int, seconds, joules float64) {
	b.T.Helper()
	for range n {
		l, err := k.Next(b.Ctx, b.Ctx)
		if err != nil {
			b.T.Fatal(err)
		}
		t, err := queuetest.Commit(b.Ctx, l.Job)
		sum := record.Totals{Documents: t.Documents, Tokens: t.Tokens, GPUSeconds: &seconds}
		if joules >= 0 {
			sum.Joules = &joules
		}
		if err == nil {
			err = l.Done(b.Ctx, sum)
		}
		if err != nil {
			b.T.Fatal(err)
		}
	}
}

// TestCosts: what jobs took on GPUs is in the summary and in the manifest, through
// a queue that was lost; of jobs that did not tell, nothing is made up.
func TestCosts(t *testing.T) {
	b := newBench(t, 5, 8) // 40 jobs of 10 tokens
	b.queue(QueueOptions{})
	k := b.Consumer("gpu")
	b.spend(k, 10, 2, 600)
	b.spend(k, 5, 2, -1) // its board has no counter
	b.Work(k, 5)         // a CPU
	if _, err := b.Client.Run(b.Ctx, b.M.Run); err != nil {
		t.Fatal(err)
	}
	// A dispatcher looks, and the store is lost.
	m, err := outdir.ReadManifest(b.Ctx, b.M.Out)
	if err != nil {
		t.Fatal(err)
	}
	bill(b.Ctx, alone{}, m, &Summary{}, costOf(b.Ctx, b.Client, m.Run, zerolog.Nop()), zerolog.Nop())
	b.Start()
	if _, err := Resume(b.Ctx, b.Client, b.M.Out, "", QueueOptions{}, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	b.spend(b.Consumer("gpu2"), 20, 1, 300)
	for range 2 { // told twice, counted once
		sum, err := b.wait()
		if err != nil || !sum.Complete {
			t.Fatalf("%+v, %v", sum, err)
		}
		// 30 jobs told of energy, 35 of time.
		want := score.Cost{Jobs: 35, Tokens: 300, Joules: 12_000, GPUTokens: 350, GPUSeconds: 50}
		m, err := outdir.ReadManifest(b.Ctx, b.M.Out)
		got, spent := m.Cost(), 0.0
		for _, s := range got.Steps {
			spent += s.Joules
		}
		got.StepSeconds, got.Steps = 0, nil
		if err != nil || !reflect.DeepEqual(got, want) || spent != want.Joules || len(m.Costs) != 2 {
			t.Errorf("the manifest has %+v, %v", m.Costs, err)
		}
		if sum.Joules == nil || *sum.Joules != 12_000 || math.Abs(*sum.JoulesPerMillionTokens-40e6) > 1 ||
			*sum.GPUSeconds != 50 || math.Abs(*sum.GPUDaysPerBillionTokens-50./350/86400*1e9) > 1e-6 {
			t.Errorf("%+v", sum)
		}
	}
}

// TestNoCosts: without a GPU there is nothing in the summary, and the manifest stays
// as it was, to the byte.
func TestNoCosts(t *testing.T) {
	b := newBench(t, 2, 3)
	path := filepath.Join(b.M.Out, score.ManifestName)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b.queue(QueueOptions{})
	b.Work(b.Consumer("cpu"), 6)
	sum, err := b.wait()
	if err != nil || sum.Joules != nil || sum.GPUSeconds != nil || sum.JoulesPerMillionTokens != nil {
		t.Errorf("%+v, %v", sum, err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the manifest has changed: %v", err)
	}
}
