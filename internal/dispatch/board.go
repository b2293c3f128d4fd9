package dispatch

import (
	"iter"

	"surprisal/internal/jobs"
	"surprisal/internal/score"
)

// board is where each of a run's jobs is. It takes about a hundred bytes of each:
// runs have millions of them, so jobs are made of the manifest when they are
// needed, and what is shown is counted as it changes.
type board struct {
	m     *score.Manifest
	at    map[score.JobKey]int32 // indices of place
	place []slot                 // in the manifest's order
	count map[jobs.State]int     // of placed jobs
	done  progressSum            // of those in StateDone
	why   map[int32]string       // the error of those that have one
	last  string                 // the newest such error of a job that waits
}

// place is one job.
type slot struct {
	key       score.JobKey
	file, cut int32
	state     jobs.State // empty: nobody has had it yet
	sum       progressSum
}

// stateCommitted: its file was there when the watch began. Records of it are old.
const stateCommitted jobs.State = "committed"

func newBoard(m *score.Manifest, c *Committed) *board {
	n := m.JobCount()
	b := &board{m: m, at: make(map[score.JobKey]int32, n), place: make([]slot, 0, n), count: map[jobs.State]int{}, why: map[int32]string{}}
	for f := range m.Files {
		for cut := range m.Files[f].Cuts {
			id := m.Job(f, cut).ID
			key, _ := score.KeyOf(id) // the manifest makes no other
			p := slot{key: key, file: int32(f), cut: int32(cut)}
			if c.Jobs[id] {
				p.state = stateCommitted
				b.count[stateCommitted]++
			}
			b.at[key] = int32(len(b.place))
			b.place = append(b.place, p)
		}
	}
	return b
}

func (b *board) job(i int32) score.Job { return b.m.Job(int(b.place[i].file), int(b.place[i].cut)) }

// open finds a job that was not committed when the watch began.
func (b *board) open(id string) (i int32, ok bool) {
	key, ok := score.KeyOf(id)
	if ok {
		i, ok = b.at[key]
	}
	return i, ok && b.place[i].state != stateCommitted
}

// put notes a job's state.
func (b *board) put(i int32, state jobs.State, sum progressSum, why string) {
	p := &b.place[i]
	if p.state == jobs.StateDone {
		b.done.documents, b.done.tokens = b.done.documents-p.sum.documents, b.done.tokens-p.sum.tokens
	}
	if p.state != "" {
		b.count[p.state]--
	}
	p.state, p.sum = state, sum
	if p.state == jobs.StateDone {
		b.done.documents, b.done.tokens = b.done.documents+sum.documents, b.done.tokens+sum.tokens
	}
	if p.state != "" {
		b.count[p.state]++
	}
	if why == "" {
		delete(b.why, i)
		return
	}
	b.why[i] = why
	if state == jobs.StateWaiting || state == jobs.StateFailed {
		b.last = why
	}
}

// committed is how many jobs have a file, as far as is known.
func (b *board) committed() int { return b.count[stateCommitted] + b.count[jobs.StateDone] }

// states counts the jobs by state; those that nobody has had are queued.
func (b *board) states() map[string]int {
	n := map[string]int{"queued": len(b.place)}
	for state, k := range b.count {
		n["queued"] -= k
		if state == stateCommitted {
			state = jobs.StateDone
		}
		n[string(state)] += k
	}
	return n
}

// finished: every job is committed or dead, as far as is known.
func (b *board) finished() bool { return b.committed()+b.count[jobs.StateDead] == len(b.place) }

// waiting is why jobs wait, if they do and one said so.
func (b *board) waiting() string {
	if b.count[jobs.StateWaiting]+b.count[jobs.StateFailed] == 0 {
		return ""
	}
	return b.last
}

// settle takes over what OUT says and gives the jobs that are neither committed
// nor dead nor anybody's; those whose files are gone are among them.
func (b *board) settle(c *Committed) (lost []int32) {
	for i := range b.place {
		p := &b.place[i]
		switch {
		case c.Jobs[p.key.String()]:
			if p.state != stateCommitted && p.state != jobs.StateDone {
				b.put(int32(i), jobs.StateDone, progressSum{}, "")
			}
		case p.state == jobs.StateDead:
		default:
			b.put(int32(i), "", progressSum{}, "")
			lost = append(lost, int32(i))
		}
	}
	return lost
}

// jobs makes the jobs of these places.
func (b *board) jobs(list []int32) iter.Seq[score.Job] {
	return func(yield func(score.Job) bool) {
		for _, i := range list {
			if !yield(b.job(i)) {
				return
			}
		}
	}
}

// dead lists the dead jobs.
func (b *board) dead() []DeadJob {
	var dead []DeadJob
	for i := range b.place {
		if b.place[i].state == jobs.StateDead {
			j := b.job(int32(i))
			dead = append(dead, DeadJob{Job: j.ID, File: j.Input.Rel, First: j.First, Last: j.Last, Reason: b.why[int32(i)]})
		}
	}
	return dead
}
