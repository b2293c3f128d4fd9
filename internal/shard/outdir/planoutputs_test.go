package outdir

import (
	"strings"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/testkit/shardtest"
)

// TestPlanOfOutputs scores a score file: all of it can't be kept.
func TestPlanOfOutputs(t *testing.T) {
	o := shardtest.TextOptions()
	o.Keep = []string{"text"}
	c, err := writeJob(t, shardtest.Job(t, shardtest.Fixtures(t, "required")[0], t.TempDir(), o, 0, 9), nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := planWith(t, c.Path, shardtest.TextOptions()); p.Error != "" {
		t.Fatal(p.Error)
	}
	o.Keep = []string{"*"}
	if p := planWith(t, c.Path, o); !strings.Contains(p.Error, `column "row" of its own`) {
		t.Fatal(p.Error)
	}
}

func planWith(t *testing.T, path string, o score.Options) score.FilePlan {
	t.Helper()
	p, err := shard.Plan(t.Context(), shardtest.Input(t, path), shard.PlanOptions{Options: o, JobTokens: 500})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
