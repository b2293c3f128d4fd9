package shard

import (
	"strings"
	"surprisal/internal/score"
	"testing"
)

// TestPlanOfOutputs scores a score file: all of it can't be kept.
func TestPlanOfOutputs(t *testing.T) {
	o := textOptions()
	o.Keep = []string{"text"}
	c, err := writeJob(t, testJob(t, fixtures(t, "required")[0], t.TempDir(), o, 0, 9), nil)
	if err != nil {
		t.Fatal(err)
	}
	if p := planWith(t, c.Path, textOptions()); p.Error != "" {
		t.Fatal(p.Error)
	}
	o.Keep = []string{"*"}
	if p := planWith(t, c.Path, o); !strings.Contains(p.Error, `column "row" of its own`) {
		t.Fatal(p.Error)
	}
}

func planWith(t *testing.T, path string, o score.Options) score.FilePlan {
	t.Helper()
	p, err := Plan(t.Context(), inputOf(t, path), PlanOptions{Options: o, JobTokens: 500})
	if err != nil {
		t.Fatal(err)
	}
	return p
}
