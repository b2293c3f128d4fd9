package monitor

import (
	"cmp"
	"crypto/sha256"
	"iter"
	"slices"
	"sort"
	"strings"
	"time"

	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

// StateQueued is the state of a job that no worker has taken yet: it has no record,
// and OUT has no file of it.
const StateQueued record.State = "queued"

// stateCommitted is the state of a job that was committed before tracking began, so
// that its record is old.
const stateCommitted record.State = "committed"

// trackedStates are the states that a Tracker distinguishes.
var trackedStates = [...]record.State{
	StateQueued, stateCommitted, record.StateRunning, record.StateWaiting, record.StateFailed, record.StateDone,
	record.StateDead,
}

// Tracker has the state of each job of a run, from the newest records, and the sums
// over them. It takes less than a hundred bytes for each job, because runs have
// millions: jobs are made from the manifest when they are needed. It is not safe for
// concurrent use.
type Tracker struct {
	m     *score.Manifest // nil: jobs are known only from their records
	begin []int           // place of the first job of each of its files
	at    map[score.JobKey]int32
	jobs  []tracked // in the manifest's order, or in that of their first records
	turns uint32    // records taken

	tally
	reasons map[int32]string // why jobs are dead; nil without a manifest
	waiting string           // the newest error of a job that waits

	lastDone   time.Time // when a job was last recorded as done
	lastError  string    // of the job that failed or died last
	errorSince time.Time // when that was
}

// tracked is one job.
type tracked struct {
	key    score.JobKey
	totals done
	turn   uint32 // of its newest record; the highest is the newest
	state  uint8  // place in trackedStates
	odd    bool   // its key is not its id
}

// done is the totals of a job that is done.
type done struct{ documents, failed, tokens uint32 }

// tally counts jobs by state and sums the totals of those that are done.
type tally struct {
	count                     map[record.State]int
	documents, failed, tokens int64
}

func newTally() tally { return tally{count: map[record.State]int{}} }

// add counts a job, or with sign -1 discounts it.
func (t *tally) add(s record.State, d done, sign int64) {
	t.count[s] += int(sign)
	t.documents += sign * int64(d.documents)
	t.failed += sign * int64(d.failed)
	t.tokens += sign * int64(d.tokens)
}

// doneOf is the totals in a record.
func doneOf(s record.Job) done {
	if s.Totals == nil || s.State != record.StateDone {
		return done{}
	}
	return done{clip32(s.Totals.Documents), clip32(s.Totals.Failed), clip32(s.Totals.Tokens)}
}

func clip32(n int64) uint32 { return uint32(max(0, min(n, 1<<32-1))) } //nolint:gosec // clipped

func stateIndex(s record.State) int { return slices.Index(trackedStates[:], s) }

// newTracker tracks the jobs whose records it takes.
func newTracker() *Tracker {
	return &Tracker{at: map[score.JobKey]int32{}, tally: newTally()}
}

// Track tracks all jobs of a manifest, which are queued at first.
func Track(m *score.Manifest) *Tracker {
	n := m.JobCount()
	t := &Tracker{
		m: m, begin: make([]int, len(m.Files)), at: make(map[score.JobKey]int32, n), jobs: make([]tracked, 0, n),
		tally: newTally(), reasons: map[int32]string{},
	}
	t.count[StateQueued] = n
	for f := range m.Files {
		t.begin[f] = len(t.jobs)
		for cut := range m.Files[f].Cuts {
			first, last := t.rows(f, cut)
			key, _ := score.KeyOf(score.JobID(m.Run, m.Files[f].Input, first, last)) // the manifest makes no other
			t.at[key] = int32(len(t.jobs))
			t.jobs = append(t.jobs, tracked{key: key})
		}
	}
	return t
}

// rows are the first and the last row of a file's job.
func (t *Tracker) rows(file, cut int) (first, last int64) {
	f := &t.m.Files[file]
	first, last = f.Cuts[cut], f.Rows-1
	if cut+1 < len(f.Cuts) {
		last = f.Cuts[cut+1] - 1
	}
	return first, last
}

// where gives the file and the cut of a place.
func (t *Tracker) where(i int32) (file, cut int) {
	// The last file that begins at or before i. Files without jobs begin where the next one does.
	file = sort.SearchInts(t.begin, int(i)+1) - 1
	return file, int(i) - t.begin[file]
}

// Job makes the job of a place.
func (t *Tracker) Job(i int32) score.Job { return t.m.Job(t.where(i)) }

// Jobs makes the jobs of these places.
func (t *Tracker) Jobs(places []int32) iter.Seq[score.Job] {
	return func(yield func(score.Job) bool) {
		for _, i := range places {
			if !yield(t.Job(i)) {
				return
			}
		}
	}
}

// Len is how many jobs there are.
func (t *Tracker) Len() int { return len(t.jobs) }

// find gives a job's place.
func (t *Tracker) find(id string) (i int32, ok bool) {
	key, ok := score.KeyOf(id)
	if ok {
		i, ok = t.at[key]
	}
	return i, ok
}

// byPrefix gives the jobs whose IDs have this prefix, at most two.
func (t *Tracker) byPrefix(prefix string) (found []score.Job) {
	for i := range t.jobs {
		if strings.HasPrefix(t.jobs[i].key.String(), prefix) {
			if found = append(found, t.Job(int32(i))); len(found) == 2 {
				break
			}
		}
	}
	return found
}

func (t *Tracker) state(i int32) record.State { return trackedStates[t.jobs[i].state] }

// set changes a job's state. reason is for a job that is dead.
func (t *Tracker) set(i int32, s record.State, d done, reason string) {
	j := &t.jobs[i]
	t.add(trackedStates[j.state], j.totals, -1)
	j.state, j.totals = uint8(max(0, stateIndex(s))), d //nolint:gosec // few states
	t.add(s, d, 1)
	if t.reasons == nil {
		return
	}
	if delete(t.reasons, i); s == record.StateDead && reason != "" {
		t.reasons[i] = reason
	}
}

// Commit notes that the job was committed before tracking began.
func (t *Tracker) Commit(id string) {
	if i, ok := t.find(id); ok {
		t.set(i, stateCommitted, done{}, "")
	}
}

// Take notes a job's newest record and gives the job's place. ok is false for a job
// that is not in the manifest or was committed before tracking began.
func (t *Tracker) Take(s record.Job) (i int32, ok bool) {
	key, known := score.KeyOf(s.Job)
	if !known { // the message was not a job
		sum := sha256.Sum256([]byte(s.Job))
		key = score.JobKey(sum[:16])
	}
	i, ok = t.at[key]
	switch {
	case ok && t.state(i) == stateCommitted, !ok && (t.m != nil || t.at == nil):
		return 0, false
	case !ok:
		i = int32(len(t.jobs)) //nolint:gosec // a run has fewer jobs
		t.at[key] = i
		t.jobs = append(t.jobs, tracked{key: key, odd: !known})
		t.count[StateQueued]++
	}
	t.turns++
	t.jobs[i].turn = t.turns
	t.set(i, s.State, doneOf(s), s.Error)
	switch s.State {
	case record.StateDone:
		if s.Updated.After(t.lastDone) {
			t.lastDone = s.Updated
		}
	case record.StateFailed, record.StateDead:
		if s.Error != "" && s.Updated.After(t.errorSince) {
			t.lastError, t.errorSince = s.Error, s.Updated
		}
	}
	if s.Error != "" && (s.State == record.StateWaiting || s.State == record.StateFailed) {
		t.waiting = s.Error
	}
	return i, true
}

// Settle corrects the states by what OUT holds, and gives the places of the jobs that
// are neither committed nor dead. They count as queued from then on.
func (t *Tracker) Settle(committed map[string]bool) (lost []int32) {
	for n := range t.jobs {
		i := int32(n) //nolint:gosec // a run has fewer jobs
		switch s := t.state(i); {
		case committed[t.jobs[n].key.String()]:
			if s != stateCommitted && s != record.StateDone {
				t.set(i, record.StateDone, done{}, "")
			}
		case s == record.StateDead:
		default:
			t.set(i, StateQueued, done{}, "")
			lost = append(lost, i)
		}
	}
	return lost
}

// release keeps only the sums.
func (t *Tracker) release() { t.at, t.jobs = nil, nil }

// Count is how many jobs are in this state.
func (t *Tracker) Count(s record.State) int { return t.count[s] }

// Committed is how many jobs have a score file, as far as is known.
func (t *Tracker) Committed() int { return t.count[stateCommitted] + t.count[record.StateDone] }

// Finished reports whether every job is committed or dead, as far as is known.
func (t *Tracker) Finished() bool { return t.Committed()+t.count[record.StateDead] == len(t.jobs) }

// Scored is the sum over the jobs done since tracking began.
func (t *Tracker) Scored() (documents, tokens int64) { return t.documents, t.tokens }

// States counts the jobs by state.
func (t *Tracker) States() map[string]int {
	n := map[string]int{string(StateQueued): 0}
	for s, k := range t.count {
		if s == stateCommitted {
			s = record.StateDone
		}
		n[string(s)] += k
	}
	return n
}

// Waiting is the newest error of a job that waits; empty if none does.
func (t *Tracker) Waiting() string {
	if t.count[record.StateWaiting]+t.count[record.StateFailed] == 0 {
		return ""
	}
	return t.waiting
}

// Open reports whether the job is in the manifest and neither committed nor dead.
func (t *Tracker) Open(id string) bool {
	i, ok := t.find(id)
	if !ok {
		return false
	}
	switch t.state(i) {
	case stateCommitted, record.StateDone, record.StateDead:
		return false
	}
	return true
}

// Dead gives the dead jobs with the reasons, in the manifest's order.
func (t *Tracker) Dead() iter.Seq2[score.Job, string] {
	return func(yield func(score.Job, string) bool) {
		for n := range t.jobs {
			i := int32(n) //nolint:gosec // a run has fewer jobs
			if t.state(i) == record.StateDead && !yield(t.Job(i), t.reasons[i]) {
				return
			}
		}
	}
}

// newest gives the IDs of the jobs in these states, those whose records changed last
// first, and whether there are more. ok is false if it does not know.
func (t *Tracker) newest(states []record.State, skip, limit int) (ids []string, more, ok bool) {
	var wanted [len(trackedStates)]bool
	for _, s := range states {
		i := stateIndex(s)
		if i < 0 || s == StateQueued || s == stateCommitted {
			return nil, false, false
		}
		wanted[i] = true
	}
	if t.at == nil {
		return nil, false, false
	}
	most, found := skip+limit, 0
	list := make([]tracked, 0, 2*most)
	best := func() {
		slices.SortFunc(list, func(a, b tracked) int { return cmp.Compare(b.turn, a.turn) })
		list = list[:min(len(list), most)]
	}
	for i := range t.jobs {
		if !wanted[t.jobs[i].state] {
			continue
		}
		if found++; len(list) == 2*most {
			best()
		}
		list = append(list, t.jobs[i])
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
