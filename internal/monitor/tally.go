package monitor

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"
	"time"

	"surprisal/internal/jobs"
	"surprisal/internal/score"
)

// tally counts a run's jobs by state as their records change.
type tally struct {
	// Of the monitor's own goroutine.
	as         time.Time // of the run's record when it was begun
	end        func()    // ends the watch; nil where none is on
	leased     time.Time // when dispatcher was asked for
	dispatcher *jobs.DispatcherRecord

	mu        sync.Mutex
	over      bool                  // the watch has ended
	complete  bool                  // all that was there at its start is told
	at        map[score.JobKey]mark // nil where the watch has ended
	turns     uint32                // records taken
	count     map[jobs.State]int
	documents int64
	tokens    int64
	failed    int64
	more      RunMore
}

// mark is what a job counts as.
type mark struct {
	documents, failed uint32
	tokens            uint32
	turn              uint32 // of its newest record; the highest is the newest
	state             uint8  // place in markStates
	odd               bool   // its key is not its id
}

var markStates = [...]jobs.State{jobs.StateRunning, jobs.StateWaiting, jobs.StateFailed, jobs.StateDone, jobs.StateDead}

func newTally() *tally { return &tally{count: map[jobs.State]int{}} }

func (t *tally) following() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.end != nil && !t.over
}

func (t *tally) counted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.complete
}

// reset begins anew, at a run's record of that time.
func (t *tally) reset(as time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.as, t.over, t.complete, t.at = as, false, false, map[score.JobKey]mark{}
	t.documents, t.tokens, t.failed, t.more = 0, 0, 0, RunMore{}
	clear(t.count)
}

func (t *tally) stop() {
	if t.end != nil {
		t.end()
	}
}

// ended keeps the sums only.
func (t *tally) ended() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over, t.at = true, nil
}

func (t *tally) current() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.complete = true
}

// take counts a job's newest record.
func (t *tally) take(s jobs.JobState) {
	key, ok := score.KeyOf(s.Job)
	if !ok { // of a message that was no job
		sum := sha256.Sum256([]byte(s.Job))
		key = score.JobKey(sum[:16])
	}
	next := mark{state: uint8(max(0, slices.Index(markStates[:], s.State))), odd: !ok} //nolint:gosec // five states
	if s.Totals != nil && s.State == jobs.StateDone {
		next.documents, next.failed, next.tokens = clip32(s.Totals.Documents), clip32(s.Totals.Failed), clip32(s.Totals.Tokens)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at == nil {
		return
	}
	if old, ok := t.at[key]; ok {
		t.add(old, -1)
	}
	t.turns++
	next.turn = t.turns
	t.at[key] = next
	t.add(next, 1)
	switch s.State {
	case jobs.StateDone:
		if s.Updated.After(t.more.LastDone) {
			t.more.LastDone = s.Updated
		}
	case jobs.StateFailed, jobs.StateDead:
		if s.Error != "" && s.Updated.After(t.more.ErrorSince) {
			t.more.LastError, t.more.ErrorSince = s.Error, s.Updated
		}
	}
}

func (t *tally) add(m mark, sign int64) {
	t.count[markStates[m.state]] += int(sign)
	t.documents += sign * int64(m.documents)
	t.failed += sign * int64(m.failed)
	t.tokens += sign * int64(m.tokens)
}

// newest gives the ids of the jobs in these states, those whose records changed last
// first, and whether there are more. ok is false where it doesn't know.
func (t *tally) newest(states []jobs.State, skip, limit int) (ids []string, more, ok bool) {
	var wanted [len(markStates)]bool
	for _, s := range states {
		i := slices.Index(markStates[:], s)
		if i < 0 {
			return nil, false, false
		}
		wanted[i] = true
	}
	type turn struct {
		key score.JobKey
		mark
	}
	most, found := skip+limit, 0
	list := make([]turn, 0, 2*most)
	best := func() {
		slices.SortFunc(list, func(a, b turn) int { return cmp.Compare(b.turn, a.turn) })
		list = list[:min(len(list), most)]
	}
	t.mu.Lock()
	known := t.at != nil && t.complete
	for key, m := range t.at {
		if !wanted[m.state] {
			continue
		}
		if found++; len(list) == 2*most {
			best()
		}
		list = append(list, turn{key, m})
	}
	t.mu.Unlock()
	if !known {
		return nil, false, false
	}
	best()
	for _, j := range list[min(skip, len(list)):] {
		if j.odd {
			return nil, false, false
		}
		ids = append(ids, j.key.String())
	}
	return ids, found > most, true
}

// status is how the run stands, as counted so far.
func (t *tally) status(r jobs.RunRecord) (RunStatus, RunMore) {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := maps.Clone(t.count)
	maps.DeleteFunc(counts, func(_ jobs.State, n int) bool { return n == 0 })
	t.more.Failed, t.more.Counting = t.failed, !t.complete && r.State != jobs.RunComplete
	return RunStatus{Run: r, Jobs: counts, Documents: t.documents, Tokens: t.tokens, Dispatcher: t.dispatcher}, t.more
}

func clip32(n int64) uint32 { return uint32(max(0, min(n, 1<<32-1))) } //nolint:gosec // clipped
