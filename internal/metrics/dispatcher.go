package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Dispatcher has the metrics of the queue, its workers and its runs. Its methods may be
// called from any goroutine.
type Dispatcher struct {
	*Set
	queue     *prometheus.GaugeVec
	oldest    *prometheus.GaugeVec
	again     *prometheus.GaugeVec
	bytes     *prometheus.GaugeVec
	stored    *prometheus.GaugeVec
	limit     *prometheus.GaugeVec
	letters   *prometheus.GaugeVec
	workers   *prometheus.GaugeVec
	vanished  prometheus.Counter
	heartbeat *prometheus.GaugeVec
	ackWait   *prometheus.GaugeVec

	runJobs, runRows, runDocuments, runTokens, runRate, runLeft, runCommit, runPaused *prometheus.GaugeVec

	mu   sync.Mutex
	runs []string // reported, oldest first
}

// NewDispatcher creates a dispatcher's metrics.
func NewDispatcher(version string) *Dispatcher {
	s := newSet("dispatcher", version)
	m := &Dispatcher{
		Set: s,
		queue: s.gauge("surprisal_queue_jobs",
			"jobs in the queue: pending, or in_hand (with a worker, or delayed after a failed attempt)", "state"),
		oldest: s.gauge("surprisal_queue_oldest_seconds",
			"seconds since the oldest job in the queue was queued, including jobs in progress; "+
				"0 if the queue is empty"),
		again: s.gauge("surprisal_queue_redelivered_jobs",
			"jobs with a worker or delayed that were delivered more than once"),
		bytes:   s.gauge("surprisal_queue_bytes", "size of the jobs in the queue in bytes"),
		stored:  s.gauge("surprisal_store_used_bytes", "bytes that JetStream stores for the account"),
		limit:   s.gauge("surprisal_store_limit_bytes", "bytes that the account may store; absent without a limit"),
		letters: s.gauge("surprisal_dead_letters", "dead jobs, which no worker takes until someone retries them"),
		workers: s.gauge("surprisal_workers", "workers alive, by engine and state: idle, busy, draining, stalled",
			"engine", "state"),
		vanished: s.counter("surprisal_workers_vanished_total",
			"workers that went silent with jobs, as seen by this dispatcher").WithLabelValues(),
		heartbeat: s.gauge("surprisal_heartbeat_age_seconds",
			"seconds since the last sign of life of the worker that has been silent longest, "+
				"among those listed and those that vanished with jobs; 0 without workers"),
		ackWait: s.gauge("surprisal_ack_wait_seconds",
			"the shortest ack wait of the queued runs: a job without a heartbeat for this long is redelivered"),
		runJobs: s.gauge("surprisal_run_jobs",
			"a run's jobs by state: queued, running, waiting, failed (will be retried), done, dead", "run", "state"),
		runRows: s.gauge("surprisal_run_rows", "rows of a run", "run"),
		runDocuments: s.gauge("surprisal_run_documents",
			"documents of a run scored so far, including those in progress",
			"run"),
		runTokens: s.gauge("surprisal_run_tokens", "tokens of a run scored so far, including those in progress", "run"),
		runRate:   s.gauge("surprisal_run_tokens_per_second", "tokens of a run scored per second, recently", "run"),
		runLeft: s.gauge("surprisal_run_time_left_seconds",
			"remaining seconds of a run at this rate; absent while unknown", "run"),
		runCommit: s.gauge("surprisal_run_last_commit_timestamp_seconds",
			"Unix time of the run's last committed job, or of when this dispatcher started to watch it", "run"),
		runPaused: s.gauge("surprisal_run_paused", "1 while the run is paused", "run"),
	}
	return m
}

// Queue is the state of the queue.
type Queue struct {
	Pending, InHand, Redelivered, Bytes float64
	Oldest                              time.Time     // zero: none
	AckWait                             time.Duration // the shortest; 0: no run is queued
}

func (m *Dispatcher) SetQueue(q Queue) {
	m.queue.WithLabelValues("pending").Set(q.Pending)
	m.queue.WithLabelValues("in_hand").Set(q.InHand)
	m.again.WithLabelValues().Set(q.Redelivered)
	m.bytes.WithLabelValues().Set(q.Bytes)
	age := 0.0
	if !q.Oldest.IsZero() {
		age = max(0, time.Since(q.Oldest).Seconds())
	}
	m.oldest.WithLabelValues().Set(age)
	known(m.ackWait, unless(q.AckWait == 0, q.AckWait.Seconds()))
}

// SetStore sets JetStream's storage usage and limit; a negative limit means none.
func (m *Dispatcher) SetStore(used, limit float64) {
	m.stored.WithLabelValues().Set(used)
	known(m.limit, limit)
}

func (m *Dispatcher) SetDeadLetters(n int) { m.letters.WithLabelValues().Set(float64(n)) }

// WorkerKind is the key by which workers are counted.
type WorkerKind struct{ Engine, State string }

// SetWorkers sets the number of workers of each kind, and the age of the oldest sign of
// life.
func (m *Dispatcher) SetWorkers(count map[WorkerKind]int, oldest time.Duration) {
	m.workers.Reset()
	for k, n := range count {
		m.workers.WithLabelValues(k.Engine, k.State).Set(float64(n))
	}
	m.heartbeat.WithLabelValues().Set(oldest.Seconds())
}

// Vanished counts a worker that went silent with jobs.
func (m *Dispatcher) Vanished() { m.vanished.Inc() }

// Run is the state of a run.
type Run struct {
	ID                      string
	Jobs                    map[string]int // by state
	Rows, Documents, Tokens int64
	TokensPerSec            float64
	Left                    time.Duration // negative: unknown
	LastCommit              time.Time
	Paused                  bool
}

// maxRuns limits the runs reported; the newest stay.
const maxRuns = 64

// SetRun updates a run, or adds it.
func (m *Dispatcher) SetRun(r Run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := false
	for _, id := range m.runs {
		known = known || id == r.ID
	}
	if !known {
		m.runs = append(m.runs, r.ID)
		if len(m.runs) > maxRuns {
			m.drop(m.runs[0])
		}
	}
	for _, state := range []string{"queued", "running", "waiting", "failed", "done", "dead"} {
		m.runJobs.WithLabelValues(r.ID, state).Set(float64(r.Jobs[state]))
	}
	m.runRows.WithLabelValues(r.ID).Set(float64(r.Rows))
	m.runDocuments.WithLabelValues(r.ID).Set(float64(r.Documents))
	m.runTokens.WithLabelValues(r.ID).Set(float64(r.Tokens))
	m.runRate.WithLabelValues(r.ID).Set(r.TokensPerSec)
	m.runPaused.WithLabelValues(r.ID).Set(truth(r.Paused))
	if !r.LastCommit.IsZero() {
		m.runCommit.WithLabelValues(r.ID).Set(float64(r.LastCommit.UnixMilli()) / 1e3)
	}
	if r.Left < 0 {
		m.runLeft.DeleteLabelValues(r.ID)
	} else {
		m.runLeft.WithLabelValues(r.ID).Set(r.Left.Seconds())
	}
}

// DropRun removes a run's metrics.
func (m *Dispatcher) DropRun(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(id)
}

func (m *Dispatcher) drop(id string) {
	for i, have := range m.runs {
		if have == id {
			m.runs = append(m.runs[:i], m.runs[i+1:]...)
			break
		}
	}
	m.runJobs.DeletePartialMatch(prometheus.Labels{"run": id})
	for _, g := range []*prometheus.GaugeVec{m.runRows, m.runDocuments, m.runTokens, m.runRate, m.runLeft, m.runCommit,
		m.runPaused} {
		g.DeleteLabelValues(id)
	}
}

func unless(absent bool, v float64) float64 {
	if absent {
		return -1
	}
	return v
}
