package worker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/traces"
)

// task is a job in hand. feed makes it, forward appends to it, commit ends it:
// one stage at a time owns it, so it needs no lock.
type task struct {
	lease   *jobs.Lease
	job     score.Job
	columns *shard.Columns
	started time.Time
	trace   *traces.Job // nil: nobody traces

	// rows are the finished documents, in the order in which they were finished.
	rows []row
	// unpacked documents of groups, and partly packed ones, and whether all of the
	// task has been read; the packer's alone.
	unpacked int
	read     bool
	// documents and tokens so far, read by whoever shows progress.
	documents, tokens atomic.Int64
	// err is why reading stopped early; such a task is given back, not committed.
	err error
}

// dropped is why nothing of the task is wanted any more: its run was cancelled, or
// the job is another's since.
func (t *task) dropped() error {
	if t.lease == nil { // in tests of the packer
		return nil
	}
	if err := context.Cause(t.lease.Context()); errors.Is(err, jobs.ErrCancelled) ||
		errors.Is(err, jobs.ErrSuperseded) {
		return err
	}
	return nil
}

// row is a finished document.
type row struct {
	score score.Score
	kept  shard.Kept
}

// taskSet is the jobs in hand.
type taskSet struct {
	mu    sync.Mutex
	tasks []*task
	// working is told whether there are any, whenever that may have changed; nil: nobody is.
	working func(bool)
	held    *jobs.Lease // waits for the session of its model
}

// hold keeps a lease that waits for another session; nil: none waits.
func (s *taskSet) hold(l *jobs.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = l
}

// moved says of every job in hand that it moves: each waits for those before it,
// and the worker as a whole does not hang.
func (s *taskSet) moved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		t.lease.Progress()
	}
	if s.held != nil {
		s.held.Progress()
	}
}

func (s *taskSet) add(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks = append(s.tasks, t)
	s.tell()
}

// tell says whether there are tasks; mu is held.
func (s *taskSet) tell() {
	if s.working != nil {
		s.working(len(s.tasks) > 0)
	}
}

// look says whether there are tasks.
func (s *taskSet) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell()
}

func (s *taskSet) remove(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks = slices.DeleteFunc(s.tasks, func(o *task) bool { return o == t })
	s.tell()
}

// clear empties the set and gives what was in it.
func (s *taskSet) clear() []*task {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := s.tasks
	s.tasks = nil
	s.tell()
	return rest
}

// progress is how far each job in hand has come.
func (s *taskSet) progress() []record.Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := make([]record.Progress, len(s.tasks))
	for i, t := range s.tasks {
		p[i] = record.Progress{Run: t.job.Run, Job: t.job.ID, Documents: t.documents.Load(), Tokens: t.tokens.Load()}
	}
	return p
}

func (w *Worker) jobLog(t *task) *zerolog.Logger {
	l := w.log.With().Str("run", t.job.Run).Str("job", t.job.ID).Str("file", t.job.Input.Rel).
		Int64("first", t.job.First).Int64("last", t.job.Last).Logger()
	return &l
}

// trace begins the job's span, under that of the command that queued it.
func (w *Worker) trace(t *task) *traces.Job {
	if w.cfg.Traces == nil {
		return nil
	}
	return w.cfg.Traces.Job(t.lease.TraceParent(), t.started, traces.JobInfo{
		Run: t.job.Run, Job: t.job.ID, File: t.job.Input.Rel, Worker: w.cfg.ID, First: t.job.First, Last: t.job.Last,
		Attempt: t.lease.Attempt,
	})
}
