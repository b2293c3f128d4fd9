package worker

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"surprisal/internal/model/cpu"
	"surprisal/internal/score"
	"surprisal/internal/testkit/modeltest"
)

// TestLongModesAgreeWithGoldens scores the goldens in every long mode through
// packer and engine, with budgets that split documents.
func TestLongModesAgreeWithGoldens(t *testing.T) {
	for _, name := range []string{"kla", "kla_128"} {
		for _, budget := range []int{64, 512, 1 << 20} {
			t.Run(fmt.Sprintf("%s/%d", name, budget), func(t *testing.T) { longModes(t, name, budget) })
		}
	}
}

func longModes(t *testing.T, name string, budget int) {
	if testing.Short() && (name != "kla" || budget == 1<<20) {
		t.Skip("short: one golden and the splitting budgets are enough")
	}
	dir := filepath.Join("../../testdata/goldens", name)
	var expected struct {
		Docs []struct {
			IDs []int32 `json:"ids"`
		} `json:"docs"`
	}
	var want struct {
		MaxLength int                  `json:"max_length"`
		Docs      []map[string]float64 `json:"docs"`
	}
	readJSON(t, filepath.Join(dir, "expected.json"), &expected)
	readJSON(t, filepath.Join(dir, "windows.json"), &want)
	ckpt, cfg := modeltest.Open(t, dir)
	defer func() { _ = ckpt.Close() }()
	engine, err := cpu.New(ckpt, cfg, cpu.Config{MaxTokens: min(budget, 4096)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	for _, long := range []score.LongMode{score.LongCarry, score.LongWindow, score.LongTruncate} {
		tk := &task{job: score.Job{Options: score.Options{Long: long, MaxLength: want.MaxLength}}}
		in, out, free := make(chan item), make(chan *packed), make(chan *packed, 2)
		free <- new(packed)
		free <- new(packed)
		p := &packer{budget: engine.Info().MaxTokens, share: engine.Info().MaxTokens, newState: engine.NewState, in: in,
			free: free, out: out}
		errc := make(chan error, 1)
		go func() { errc <- p.run(t.Context()) }()
		go func() {
			defer close(in)
			for _, d := range expected.Docs {
				in <- item{doc: &document{task: tk, ids: d.IDs}}
			}
		}()
		for pk := range out {
			if err := engine.Forward(t.Context(), &pk.batch); err != nil {
				t.Fatal(err)
			}
			for i := range pk.steps {
				pk.steps[i].take(pk.batch.NLL, pk.batch.Top1)
			}
			free <- pk
		}
		if err := <-errc; err != nil {
			t.Fatal(err)
		}
		for i, r := range tk.rows {
			sum := want.Docs[i][string(long)+"_sum_nll"]
			if diff := math.Abs(r.score.SumNLL-sum) / float64(r.score.Tokens); diff > 5e-5 {
				t.Errorf("%s document %d (%d tokens): sum %.6f, want %.6f: off by %.1e a token", long, i,
					r.score.Tokens, r.score.SumNLL, sum, diff)
			}
		}
		if len(tk.rows) != len(expected.Docs) {
			t.Fatalf("%s: %d of %d documents", long, len(tk.rows), len(expected.Docs))
		}
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
