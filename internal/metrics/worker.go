package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Phase is a stage of the work on a batch or on its rows.
type Phase string

// The phases, in pipeline order.
const (
	PhaseRead     Phase = "read"     // rows from the input, a chunk of them
	PhaseTokenize Phase = "tokenize" // a chunk's texts, on one core
	PhasePack     Phase = "pack"     // documents into a batch
	PhaseCopy     Phase = "copy"     // a batch's states, before its forward pass
	PhaseForward  Phase = "forward"  // a batch's forward pass, transfers included
	PhaseWrite    Phase = "write"    // a job's score file, from its creation to its commit
)

var phases = []Phase{PhaseRead, PhaseTokenize, PhasePack, PhaseCopy, PhaseForward, PhaseWrite}

// Cause is what an idle engine waits for.
type Cause string

const (
	CauseNoJob      Cause = "no_job"     // the queue has none for it
	CauseLoading    Cause = "loading"    // its model
	CauseReading    Cause = "reading"    // rows
	CauseTokenizing Cause = "tokenizing" // token ids
	CauseWriting    Cause = "writing"    // score files of jobs that are scored
)

var causes = []Cause{CauseNoJob, CauseLoading, CauseReading, CauseTokenizing, CauseWriting}

// settledStates are the states of package jobs in which a lease can end.
var settledStates = []string{"done", "failed", "waiting", "dead"}

// Worker has the metrics of a worker process. Its methods may be called from any
// goroutine.
type Worker struct {
	*Set
	documents   *prometheus.CounterVec
	tokens      prometheus.Counter
	bytes       prometheus.Counter
	jobs        *prometheus.CounterVec
	deliveries  prometheus.Counter
	redelivered prometheus.Counter
	conflicts   prometheus.Counter
	nonFinite   prometheus.Counter
	perplexity  prometheus.Observer
	forward     prometheus.Counter
	flops       prometheus.Counter
	peak        *prometheus.GaugeVec
	utilization *prometheus.GaugeVec
	perJoule    *prometheus.GaugeVec
	phase       map[Phase]prometheus.Observer
	fill        prometheus.Observer
	idle        map[Cause]prometheus.Counter
	ackWait     *prometheus.GaugeVec
}

// NewWorker creates a worker's metrics. Counters start at 0, so that a rate includes
// the first count.
func NewWorker(version string) *Worker {
	s := newSet("worker", version)
	one := func(name, help string) prometheus.Counter { return s.counter(name, help).WithLabelValues() }
	m := &Worker{
		Set: s,
		documents: s.counter("surprisal_documents_total", "documents (rows) in the jobs that this worker committed",
			"result"),
		tokens: one("surprisal_tokens_total", "tokens scored in the jobs that this worker committed"),
		bytes: one("surprisal_bytes_total",
			"bytes of UTF-8 text scored in the jobs that this worker committed, where known"),
		jobs:       s.counter("surprisal_jobs_total", "jobs that this worker ended, by resulting state", "state"),
		deliveries: one("surprisal_deliveries_total", "jobs that the queue delivered to this worker"),
		redelivered: one("surprisal_redeliveries_total",
			"of these, jobs that had been delivered before: returned, failed, or lost by a worker"),
		conflicts: one("surprisal_commit_conflicts_total",
			"score files refused because an existing file of the same job has different scores"),
		nonFinite: one("surprisal_nonfinite_scores_total", "documents whose score is not finite"),
		forward: one("surprisal_forward_tokens_total",
			"tokens that went through forward passes, including contexts and repeated jobs"),
		flops: one("surprisal_model_flops_total", "floating-point operations of the matrix products for those tokens"),
		peak: s.gauge("surprisal_engine_peak_flops",
			"peak floating-point operations per second from the GPU's data sheet, dense, in the engine's precision"),
		utilization: s.gauge("surprisal_model_flops_utilization_ratio", "share of the peak, over the last 10 s"),
		perJoule:    s.gauge("surprisal_tokens_per_joule", "forward tokens per joule of the GPU, over the last 10 s"),
		ackWait: s.gauge("surprisal_ack_wait_seconds",
			"the shortest ack wait of the jobs in progress: a job without a heartbeat for this long is redelivered"),
		phase: map[Phase]prometheus.Observer{},
		idle:  map[Cause]prometheus.Counter{},
	}
	for _, result := range []string{"scored", "failed"} {
		m.documents.WithLabelValues(result)
	}
	for _, state := range settledStates {
		m.jobs.WithLabelValues(state)
	}
	m.perplexity = s.histogram(prometheus.HistogramOpts{
		Name:                        "surprisal_document_perplexity",
		Help:                        "perplexity of the documents in the jobs that this worker committed",
		Buckets:                     []float64{2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536},
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160,
		NativeHistogramMinResetDuration: time.Hour,
	}).WithLabelValues()
	seconds := s.histogram(prometheus.HistogramOpts{
		Name: "surprisal_phase_seconds",
		Help: "seconds of work by phase: per chunk of rows (read, tokenize), " +
			"batch (pack, copy, forward) or job (write)",
		Buckets: []float64{.0001, .001, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
	}, "phase")
	for _, p := range phases {
		m.phase[p] = seconds.WithLabelValues(string(p))
	}
	m.fill = s.histogram(prometheus.HistogramOpts{
		Name: "surprisal_batch_fill_ratio", Help: "tokens in a batch, as a share of its token budget",
		Buckets: []float64{.1, .25, .5, .75, .9, .95, .99, 1},
	}).WithLabelValues()
	idle := s.counter("surprisal_engine_idle_seconds_total",
		"seconds that the engine (GPU or CPU) was idle, by what it waited for", "cause")
	for _, c := range causes {
		m.idle[c] = idle.WithLabelValues(string(c))
	}
	return m
}

// Live adds gauges, read at each scrape, for the number of jobs in progress and the age
// of the oldest heartbeat among them.
func (m *Worker) Live(inHand func() int, heartbeat func() time.Duration) {
	m.gaugeFunc("surprisal_jobs_in_hand", "jobs that this worker has", func() float64 { return float64(inHand()) })
	m.gaugeFunc("surprisal_heartbeat_age_seconds",
		"seconds since the oldest heartbeat of a job in progress; 0 without one",
		func() float64 { return heartbeat().Seconds() })
}

// Connected adds a gauge, read at each scrape, for whether a server answers.
func (s *Set) Connected(read func() bool) {
	s.gaugeFunc("surprisal_nats_connected", "1 while a NATS server answers", func() float64 { return truth(read()) })
}

// Committed counts a completed job: its documents (including failed ones), tokens and bytes.
func (m *Worker) Committed(documents, failed, tokens, bytes int64) {
	m.Settled("done")
	m.documents.WithLabelValues("scored").Add(float64(documents - failed))
	m.documents.WithLabelValues("failed").Add(float64(failed))
	m.tokens.Add(float64(tokens))
	m.bytes.Add(float64(bytes))
}

// Perplexity counts a document of a committed job.
func (m *Worker) Perplexity(p float64) { m.perplexity.Observe(p) }

// Delivered counts a job received, and whether it had been delivered before.
func (m *Worker) Delivered(before bool) {
	m.deliveries.Inc()
	if before {
		m.redelivered.Inc()
	}
}

// Settled counts a job that this worker ended, by its state in package jobs.
func (m *Worker) Settled(state string) { m.jobs.WithLabelValues(state).Inc() }

// Conflict counts a score file refused because a different one exists.
func (m *Worker) Conflict() { m.conflicts.Inc() }

// NonFinite counts a document whose score is not finite.
func (m *Worker) NonFinite() { m.nonFinite.Inc() }

// Batch counts a forward pass: its tokens, their budget, and the floating-point
// operations per token (0: unknown).
func (m *Worker) Batch(tokens, budget int, flops float64) {
	m.forward.Add(float64(tokens))
	m.flops.Add(float64(tokens) * flops)
	m.fill.Observe(float64(tokens) / float64(budget))
}

// Took records the duration of a phase.
func (m *Worker) Took(p Phase, d time.Duration) { m.phase[p].Observe(d.Seconds()) }

// Idle counts time that the engine was idle.
func (m *Worker) Idle(c Cause, d time.Duration) { m.idle[c].Add(d.Seconds()) }

// Efficiency sets the averages over the last seconds. A negative value is unknown, and
// its metric absent.
func (m *Worker) Efficiency(peakFlops, utilization, tokensPerJoule float64) {
	known(m.peak, peakFlops)
	known(m.utilization, utilization)
	known(m.perJoule, tokensPerJoule)
}

// AckWait sets the shortest ack wait of the jobs in progress; 0 while there are none.
func (m *Worker) AckWait(d time.Duration) {
	if d > 0 {
		m.ackWait.WithLabelValues().Set(d.Seconds())
	}
}

// known sets a gauge, or removes it if the value is unknown.
func known(g *prometheus.GaugeVec, v float64) {
	if v < 0 {
		g.Reset()
		return
	}
	g.WithLabelValues().Set(v)
}
