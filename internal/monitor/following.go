package monitor

import (
	"maps"
	"sync"
	"time"

	"surprisal/internal/jobs/record"
)

// following is a run whose jobs a Monitor follows or has counted.
type following struct {
	// Of the monitor's own goroutine.
	as         time.Time // when the run's record was last changed, as of the start
	end        func()    // ends the watch; nil: there was none
	leased     time.Time // when dispatcher was read
	dispatcher *record.Dispatcher

	mu    sync.Mutex
	over  bool // the watch has ended
	whole bool // all records that existed at its start have been taken
	jobs  *Tracker
}

func newFollowing() *following { return &following{jobs: newTracker()} }

func (f *following) on() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.end != nil && !f.over
}

func (f *following) counted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.whole
}

// reset starts from nothing, with the run's record as of that time.
func (f *following) reset(as time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.as, f.over, f.whole, f.jobs = as, false, false, newTracker()
}

func (f *following) stop() {
	if f.end != nil {
		f.end()
	}
}

// ended keeps only the sums.
func (f *following) ended() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	f.jobs.release()
}

func (f *following) current() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole = true
}

func (f *following) take(s record.Job) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.jobs.Take(s)
}

// newest is Tracker.newest, once all records have been taken.
func (f *following) newest(states []record.State, skip, limit int) (ids []string, more, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.whole {
		return nil, false, false
	}
	return f.jobs.newest(states, skip, limit)
}

// status is the run's status, as counted so far.
func (f *following) status(r record.Run) (RunStatus, RunMore) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.jobs
	counts := maps.Clone(t.count)
	maps.DeleteFunc(counts, func(_ record.State, n int) bool { return n == 0 })
	return RunStatus{Run: r, Jobs: counts, Documents: t.documents, Tokens: t.tokens, Dispatcher: f.dispatcher}, RunMore{
		Counting: !f.whole && r.State != record.RunComplete, Failed: t.failed,
		LastDone: t.lastDone, LastError: t.lastError, ErrorSince: t.errorSince,
	}
}
