package monitor

import (
	"testing"

	"surprisal/internal/jobs/record"
)

// TestPace: percent, rate and time left of a run.
func TestPace(t *testing.T) {
	r := record.Run{ID: "a", Jobs: 10, Rows: 1000, Tokens: 100_000, State: record.RunRunning}
	workers := []record.Worker{
		{TokensPerSec: 100, Progress: []record.Progress{{Run: "a", Documents: 100, Tokens: 10_000}}},
		{TokensPerSec: 100, Progress: []record.Progress{{Run: "a"}, {Run: "b"}}},
		{TokensPerSec: 1e9},
	}
	p := paceOf(r, tally{count: map[record.State]int{record.StateDone: 4}, documents: 400, tokens: 40_000}, workers)
	if p.Done != 4 || p.Total != 10 || p.Percent != 50 || p.TokensPerSec != 150 || p.Left == nil || *p.Left != 333 {
		t.Errorf("%+v", p)
	}
	if p := paceOf(r, tally{}, nil); p.Percent != 0 || p.Left != nil {
		t.Errorf("nobody works: %+v", p)
	}
	r.State = record.RunComplete
	if p := paceOf(r, tally{}, workers); p.Percent != 100 || p.Done != 10 || p.Left != nil {
		t.Errorf("complete: %+v", p)
	}
}
