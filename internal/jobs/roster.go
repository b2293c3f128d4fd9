package jobs

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// roster is the runs that a worker can take jobs of, as last read, and whose turn it is.
type roster struct {
	c   *Client
	log zerolog.Logger

	mu      sync.Mutex
	runs    map[string]*liveRun
	turn    uint64        // counts jobs taken
	idle    int           // workers that waited for a job when last read
	changed chan struct{} // closed and replaced when a run was added, removed or got jobs
	dirty   chan struct{} // full: read the runs again
}

// liveRun is a run in the roster.
type liveRun struct {
	RunQueueInfo
	served  uint64    // turn of the last job taken
	parked  uint64    // turn of the last wait for a job
	shun    time.Time // take no job before
	shunned int       // times in a row
	told    bool      // the drift was logged
	heard   time.Time // when the last notice of queued jobs came, or the run was first seen
	handle  jetstream.Consumer
}

const (
	// lookEvery is how often a worker reads the runs without a notice.
	lookEvery = 10 * time.Second
	// shunFirst and shunMost are how long a run is skipped after this worker declined a
	// job of it, so that other runs are not held up.
	shunFirst = time.Second
	shunMost  = 5 * time.Minute
	// countLag is how long a server may take to count messages that it has acked.
	countLag = 2 * time.Second
)

func newRoster(c *Client, log zerolog.Logger) *roster {
	return &roster{
		c: c, log: log, runs: map[string]*liveRun{}, changed: make(chan struct{}),
		dirty: make(chan struct{}, 1), // one read serves any number of notices
	}
}

// hear handles a notice.
func (r *roster) hear(run string, n notice) {
	if n == noticeQueued {
		r.mu.Lock()
		l := r.runs[run]
		if l != nil {
			l.Pending, l.heard = max(l.Pending, 1), time.Now()
			r.wake()
		}
		r.mu.Unlock()
		if l != nil {
			return
		}
	}
	r.look()
}

// look makes follow read the runs soon.
func (r *roster) look() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

// wake wakes waiting calls of Next; mu is held.
func (r *roster) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// rouse makes waiting calls of Next ask all runs again, with new handles.
func (r *roster) rouse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.runs {
		l.handle = nil
	}
	r.wake()
}

// refresh reads the runs.
func (r *roster) refresh(ctx context.Context) error {
	asked := time.Now()
	list, err := r.c.runQueues(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = nil // the store was lost: a dispatcher recreates the stream
	}
	if err != nil {
		return r.c.fail("look at the queue", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := make(map[string]bool, len(list))
	news := false
	r.idle = 0
	for _, q := range list {
		seen[q.Run] = true
		r.idle += q.Waiting
		l := r.runs[q.Run]
		if l == nil {
			l = &liveRun{served: r.turn, heard: asked} // its jobs may just have been queued
			r.runs[q.Run] = l
			r.log.Debug().Str("run", q.Run).Int("priority", q.Priority).Msg("serving run")
		}
		if l.heard.After(asked.Add(-countLag)) { // the answer may be older than the notice
			q.Pending = max(q.Pending, 1)
		}
		news = news || !l.open() && q.drift == nil && !q.Paused && (q.Pending > 0 || q.AckPending > 0) ||
			q.Pending > l.Pending
		l.RunQueueInfo = q
		if q.drift == nil {
			l.told = false
		} else if !l.told {
			l.told = true
			r.log.Error().Err(q.drift).Str("run", q.Run).Msg("taking no jobs of this run")
		}
	}
	for run := range r.runs {
		if !seen[run] {
			delete(r.runs, run)
			news = true
		}
	}
	if news {
		r.wake()
	}
	return nil
}

// open reports whether there may be a job to take.
func (l *liveRun) open() bool {
	return l.drift == nil && !l.Paused && (l.Pending > 0 || l.AckPending > 0)
}

// order lists the runs to try: by priority, and within a priority those first that have
// waited longest for their turn. wait is closed when the order may have changed; soon
// is when the next skipped run may be tried.
func (r *roster) order(now time.Time) (runs []string, wait <-chan struct{}, soon time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var open []*liveRun
	for _, l := range r.runs {
		switch {
		case !l.open():
		case l.shun.After(now):
			if soon.IsZero() || l.shun.Before(soon) {
				soon = l.shun
			}
		default:
			open = append(open, l)
		}
	}
	slices.SortFunc(open, func(a, b *liveRun) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.served, b.served), cmp.Compare(a.Run, b.Run))
	})
	for _, l := range open {
		runs = append(runs, l.Run)
	}
	return runs, r.changed, soon
}

// park chooses the run to wait for: each in turn.
func (r *roster) park(runs []string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	best := ""
	for _, run := range runs {
		l := r.runs[run]
		if l != nil && (best == "" || l.parked < r.runs[best].parked) {
			best = run
		}
	}
	if l := r.runs[best]; l != nil {
		r.turn++
		l.parked = r.turn
	}
	return best
}

// sweepEvery is how often an idle worker asks each of n runs for a job: rarely if many
// workers are idle, which together wait for jobs of all runs.
func (r *roster) sweepEvery(n int) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	const rate = 300 // requests per second, all workers together
	return min(max(time.Duration(r.idle*n)*time.Second/rate, time.Second), 30*time.Second)
}

// queue is the run's part of the queue, as last read.
func (r *roster) queue(run string) (RunQueueInfo, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.runs[run]
	if l == nil {
		return RunQueueInfo{}, false
	}
	return l.RunQueueInfo, true
}

// handle is the run's consumer, which is looked up once.
func (r *roster) handle(ctx context.Context, run string) (jetstream.Consumer, error) {
	r.mu.Lock()
	l := r.runs[run]
	if l == nil || l.handle != nil {
		defer r.mu.Unlock()
		if l == nil {
			return nil, errGone
		}
		return l.handle, nil
	}
	r.mu.Unlock()
	h, err := r.c.js.Consumer(perRequest{ctx}, jobStream, runDurable(run))
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l.handle = h
	return h, nil
}

// took notes that a job of the run was taken.
func (r *roster) took(run string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.runs[run]; l != nil {
		r.turn++
		l.served = r.turn
	}
}

// none notes that the run had no job to give.
func (r *roster) none(run string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.runs[run]; l != nil && l.Pending > 0 {
		l.Pending = 0
		l.AckPending = max(l.AckPending, 1) // until the next read, assume that some are in hand
	}
}

// leave skips the run for a while.
func (r *roster) leave(run string, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.runs[run]; l != nil {
		l.shun = time.Now().Add(d)
	}
}

// declined skips the run, longer each time in a row.
func (r *roster) declined(run string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.runs[run]; l != nil {
		l.shun = time.Now().Add(backoff(shunFirst, shunMost, l.shunned))
		l.shunned++
	}
}

// accepted notes that this worker did a job of the run.
func (r *roster) accepted(run string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.runs[run]; l != nil {
		l.shunned = 0
	}
}

// pending lists the runs that had pending jobs when last read.
func (r *roster) pending(now time.Time) (runs []RunQueueInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.runs {
		if l.Pending > 0 && l.drift == nil && !l.shun.After(now) {
			runs = append(runs, l.RunQueueInfo)
		}
	}
	return runs
}
