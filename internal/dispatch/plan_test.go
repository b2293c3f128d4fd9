package dispatch

import (
	"context"
	"path/filepath"
	"testing"

	"surprisal/internal/score"
)

func TestJobTokens(t *testing.T) {
	for _, c := range []struct {
		tokens  int64
		workers int
		want    int64
	}{
		{0, 0, DefaultJobTokens}, {1e6, 1, DefaultJobTokens}, {0, 2, 200_000}, {27_800_000, 2, 217_187},
		{27_800_000, 8, 200_000}, {1e9, 8, 1_953_125}, {1e12, 8, DefaultJobTokens}, {1 << 62, 2, DefaultJobTokens},
	} {
		if got := jobTokens(c.tokens, c.workers); got != c.want {
			t.Errorf("%d tokens on %d workers: jobs of %d, want %d", c.tokens, c.workers, got, c.want)
		}
	}
}

// TestPlanShares: several workers get jobs enough, unless their size was asked for.
func TestPlanShares(t *testing.T) {
	demo, err := filepath.Abs("../../examples/demo")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		asked   int64
		workers int
		want    int64
	}{{0, 1, DefaultJobTokens}, {0, 2, 200_000}, {3000, 2, 3000}} {
		req := Request{Inputs: []string{demo + "/corpus"}, ModelDir: demo + "/model", JobTokens: c.asked,
			Options: score.Options{
				TextColumn: "text", Long: score.LongCarry, Special: score.SpecialText, Engine: score.EngineAuto,
			}}
		req.Engine = func(context.Context, score.EngineKind) (score.EngineKind, int, error) {
			return score.EngineCPU, c.workers, nil
		}
		m, _, err := Plan(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if m.JobTokens != c.want || m.Options.Engine != score.EngineCPU {
			t.Errorf("%d workers, %d asked for: jobs of %d on %s, want %d", c.workers, c.asked, m.JobTokens,
				m.Options.Engine, c.want)
		}
		if c.asked > 0 && m.JobCount() < 50 {
			t.Errorf("%d jobs of %d tokens", m.JobCount(), c.asked)
		}
	}
}
