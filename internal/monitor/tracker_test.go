package monitor

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// TestFind finds each job by its id and by the beginning of it.
func TestFind(t *testing.T) {
	m := manifestOf(t, 3, 7)
	m.Files = slices.Insert(m.Files, 1, score.FilePlan{Input: score.Input{Rel: "bad"}, Error: "bad"},
		score.FilePlan{Input: score.Input{Rel: "empty"}})
	x := Track(m)
	n := int32(0)
	for j := range m.AllJobs() {
		i, ok := x.find(j.ID)
		if got := x.Job(i); !ok || i != n || got.ID != j.ID || got.Output != j.Output {
			t.Fatalf("job %d is at %d: %+v, %t", n, i, got, ok)
		}
		if found := x.byPrefix(j.ID[:12]); len(found) != 1 || found[0].ID != j.ID {
			t.Errorf("by prefix: %d", len(found))
		}
		n++
	}
	for _, id := range []string{"", "x", "zzzzzzzzzzzzzzzzzzzzzzzzzz", "0000"} {
		if _, ok := x.find(id); ok {
			t.Errorf("found %q", id)
		}
	}
	if len(x.byPrefix("")) != 2 {
		t.Error("every job begins with nothing")
	}
}

// TestTracker: what is counted follows the newest records, with a manifest and
// without one.
func TestTracker(t *testing.T) {
	m := manifestOf(t, 2, 3)
	all := m.Jobs()
	rec := func(n int, s record.State, tokens int64, why error) record.Job {
		r := record.Job{Run: m.Run, Job: all[n].ID, State: s, Updated: time.Unix(int64(n)+1, 0)}
		if s == record.StateDone {
			r.Totals = &record.Totals{Documents: 10, Tokens: tokens, Failed: 1}
		}
		if why != nil {
			r.Error = why.Error()
		}
		return r
	}
	of, loose := Track(m), newTracker()
	of.Commit(all[0].ID)
	if _, ok := of.Take(rec(0, record.StateDead, 0, errors.New("old"))); ok {
		t.Error("a record of a job that is committed was taken")
	}
	if _, ok := of.Take(record.Job{Job: score.JobKey{1}.String(), State: record.StateDead}); ok {
		t.Error("a record of another run's job was taken")
	}
	for _, r := range []record.Job{
		rec(1, record.StateRunning, 0, nil), rec(1, record.StateDone, 100, nil), rec(2, record.StateFailed, 0,
			errors.New("once")),
		rec(3, record.StateDone, 50, nil), rec(3, record.StateRunning, 0, nil), rec(4, record.StateDead, 0,
			errors.New("bad rows")),
	} {
		if i, ok := of.Take(r); !ok || of.Job(i).ID != r.Job {
			t.Errorf("job %s is at %d, %t", r.Job, i, ok)
		}
		loose.Take(r)
	}
	want := map[string]int{"queued": 1, "done": 2, "running": 1, "failed": 1, "dead": 1}
	if got := of.States(); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	want["queued"], want["done"] = 0, 1
	if got := loose.States(); !maps.Equal(got, want) {
		t.Errorf("%v without a manifest, want %v", got, want)
	}
	for _, x := range []*Tracker{of, loose} {
		if d, n := x.Scored(); d != 10 || n != 100 || x.failed != 1 || x.Waiting() != "once" ||
			x.lastError != "bad rows" || !x.lastDone.Equal(time.Unix(4, 0)) {
			t.Errorf("%d documents, %d tokens: %+v", d, n, x)
		}
	}
	if of.Finished() || of.Open(all[0].ID) || of.Open(all[1].ID) || !of.Open(all[3].ID) || !of.Open(all[5].ID) ||
		of.Open(all[4].ID) {
		t.Error("what is open")
	}
	lost := of.Settle(map[string]bool{all[0].ID: true, all[1].ID: true, all[2].ID: true})
	if ids := slices.Collect(of.Jobs(lost)); len(ids) != 2 || ids[0].ID != all[3].ID || ids[1].ID != all[5].ID {
		t.Errorf("lost: %v", lost)
	}
	n := 0
	for j, why := range of.Dead() {
		if n++; j.ID != all[4].ID || why != "bad rows" {
			t.Errorf("%s is dead: %s", j.ID, why)
		}
	}
	if n != 1 || of.Committed() != 3 || of.Waiting() != "" {
		t.Errorf("%d dead, %d committed, waiting %q", n, of.Committed(), of.Waiting())
	}
	loose.release()
	if _, ok := loose.Take(rec(5, record.StateDone, 1, nil)); ok || loose.Count(record.StateDone) != 1 {
		t.Error("released and yet tracked")
	}
}
