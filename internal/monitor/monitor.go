package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
)

// Monitor keeps the status of all runs current: it asks for what is small at intervals
// and follows what is large. For each job of an active run it holds about a hundred
// bytes.
type Monitor struct {
	client *jobs.Client
	log    zerolog.Logger
	tasks  *errgroup.Group
	every  time.Duration
	finals chan struct{} // one slot for each run that has ended and is being counted

	mu    sync.Mutex
	runs  map[string]*following
	rates map[string]*workerRate
	over  Overview
	known map[string]*following // runs, as of the last look
}

// Overview is what a Monitor knows.
type Overview struct {
	Status // of all runs, including those that have ended, without dead letters
	// More has one element for each of Status.Runs.
	More []RunMore
	// Seen is when the server last answered all requests; zero: never.
	Seen time.Time
	// Trouble is why the overview is out of date; nil while the server answers.
	Trouble error
}

// RunMore is what a Monitor knows about a run beyond its status.
type RunMore struct {
	// Counting: the jobs' records are still being read for the first time.
	Counting   bool
	Failed     int64     // rows without a score, of jobs that are done
	LastDone   time.Time // when a job was last committed
	LastError  string    // of the job that failed or died last
	ErrorSince time.Time // when that was
}

const (
	// leaseEvery is how often runs' leases are read.
	leaseEvery = 10 * time.Second
	// finalsAtOnce is how many runs that have ended are counted at the same time.
	finalsAtOnce = 2
	// rateOver is the time over which a worker's rate is averaged: a batch may take a second.
	rateOver = 10 * time.Second
)

// Config is how a Monitor works.
type Config struct {
	Every time.Duration // between requests for runs, workers and queue; 2 s
	Log   zerolog.Logger
}

func (c Config) withDefaults() Config {
	if c.Every == 0 {
		c.Every = 2 * time.Second
	}
	return c
}

// New makes a Monitor; Run starts it.
func New(client *jobs.Client, cfg Config) *Monitor {
	cfg = cfg.withDefaults()
	return &Monitor{
		client: client, log: cfg.Log, every: cfg.Every, finals: make(chan struct{}, finalsAtOnce),
		runs: map[string]*following{}, rates: map[string]*workerRate{},
		over: Overview{Status: Status{Runs: []RunStatus{}, Workers: []record.Worker{}}},
	}
}

// Overview is what is known now. The caller must not change it.
func (m *Monitor) Overview() Overview {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.over
}

// Newest gives the IDs of a run's jobs in these states, which must be states of
// records, those whose record changed last first, and whether there are more. ok is
// false if the monitor does not hold the run's jobs: the run has ended, or its records
// have not all been read.
func (m *Monitor) Newest(run string, states []record.State, skip, limit int) (ids []string, more, ok bool) {
	m.mu.Lock()
	t := m.known[run]
	m.mu.Unlock()
	if t == nil || skip < 0 || limit <= 0 {
		return nil, false, false
	}
	return t.newest(states, skip, limit)
}

// Run keeps the overview current until ctx ends, even if the server is unavailable at
// times, and returns nil then. It returns an error if the connection is closed for
// good.
func (m *Monitor) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.tasks = &errgroup.Group{}
	defer func() { cancel(); _ = m.tasks.Wait() }() // they return nil
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	for {
		if err := m.look(ctx); err != nil && ctx.Err() == nil {
			m.mu.Lock()
			m.over.Trouble = err
			m.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		case <-m.client.Closed():
			if ctx.Err() != nil {
				return nil
			}
			return cmp.Or(m.client.Err(), conn.ErrClosed)
		}
	}
}

// look makes each request once.
func (m *Monitor) look(ctx context.Context) error {
	if !m.client.Connected() {
		return conn.ErrUnreachable
	}
	asked, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	lost := m.client.Lost()
	watched := make(chan struct{})
	defer func() { cancel(); <-watched }()
	go func() {
		defer close(watched)
		select {
		case <-lost: // pending requests will not be answered
			cancel()
		case <-asked.Done():
		}
	}()
	records, err := m.client.Runs(asked)
	unset := errors.Is(err, jobs.ErrNotSetUp)
	if err != nil && !unset {
		return slow(asked, err)
	}
	var queue jobs.QueueInfo
	var workers []record.Worker
	if !unset {
		if queue, err = m.client.Queue(asked); err != nil && !errors.Is(err, jobs.ErrNotSetUp) {
			return slow(asked, err)
		}
		if workers, err = m.client.Workers(asked); err != nil && !errors.Is(err, jobs.ErrNotSetUp) {
			return slow(asked, err)
		}
	}
	m.smooth(workers)
	inHand := map[string]bool{}
	for i := range workers {
		for _, h := range workers[i].Progress {
			inHand[h.Run] = true
		}
	}
	over := Overview{Status: Status{Runs: []RunStatus{}, Queue: queue, Workers: append([]record.Worker{}, workers...)},
		Seen: time.Now()}
	for _, r := range records {
		t := m.follow(ctx, r, inHand[r.ID])
		if !r.State.Final() && time.Since(t.leased) > leaseEvery {
			d, ok, err := m.client.Dispatcher(asked, r.ID)
			if err != nil && asked.Err() != nil {
				return slow(asked, err)
			}
			if t.leased, t.dispatcher = time.Now(), nil; ok && err == nil {
				t.dispatcher = &d
			}
		}
		rs, more := t.status(r)
		rs.Pace = paceOf(r, tally{count: rs.Jobs, documents: rs.Documents, tokens: rs.Tokens}, workers)
		over.Runs, over.More = append(over.Runs, rs), append(over.More, more)
	}
	for id, t := range m.runs {
		if !slices.ContainsFunc(records, func(r record.Run) bool { return r.ID == id }) {
			t.stop()
			delete(m.runs, id)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over, m.known = over, maps.Clone(m.runs)
	return nil
}

// slow explains an error by how the context of its request ended.
func slow(asked context.Context, err error) error {
	switch asked.Err() {
	case context.Canceled:
		return conn.ErrUnreachable
	case context.DeadlineExceeded:
		return fmt.Errorf("%w: no answer within 10s", conn.ErrUnreachable)
	}
	return err
}

// follow follows the run's jobs while the run is active or workers have jobs of it in
// hand, and counts them once if it has ended.
func (m *Monitor) follow(ctx context.Context, r record.Run, inHand bool) *following {
	t := m.runs[r.ID]
	if t == nil {
		t = newFollowing()
		m.runs[r.ID] = t
	}
	live := !r.State.Final() || inHand
	switch {
	case t.on() && !live && t.counted():
		t.stop()
		t.as = r.Updated
	case t.on():
	case live || r.State != record.RunComplete && !t.as.Equal(r.Updated):
		// From the beginning: what it had may be from another stream.
		t.reset(r.Updated)
		if !live {
			select {
			case m.finals <- struct{}{}:
			default:
				t.as = time.Time{} // later
				return t
			}
		}
		watch, stop := context.WithCancel(ctx)
		t.end = stop
		m.tasks.Go(func() error {
			defer t.ended()
			defer stop()
			if !live {
				defer func() { <-m.finals }()
			}
			err := m.client.WatchRun(watch, r.ID, t.take, func() {
				t.current()
				if !live {
					stop()
				}
			})
			if err != nil && watch.Err() == nil {
				m.log.Debug().Err(err).Str("run", r.ID).Msg("run not followed; retrying")
			}
			return nil
		})
	}
	return t
}

// workerRate is how much a worker had scored at several times, the newest last.
type workerRate struct {
	started time.Time
	listed  time.Time // when it was last listed, by this machine's clock
	at      []time.Time
	tokens  []int64
}

// smooth replaces each worker's rate over the last second by that over rateOver.
func (m *Monitor) smooth(workers []record.Worker) {
	for i := range workers {
		w := &workers[i]
		r := m.rates[w.ID]
		if r == nil || !r.started.Equal(w.Started) {
			r = &workerRate{started: w.Started}
			m.rates[w.ID] = r
		}
		r.listed = time.Now()
		if n := len(r.at); n == 0 || w.Updated.After(r.at[n-1]) {
			r.at, r.tokens = append(r.at, w.Updated), append(r.tokens, w.TokensDone)
		}
		for len(r.at) > 2 && w.Updated.Sub(r.at[1]) >= rateOver {
			r.at, r.tokens = slices.Delete(r.at, 0, 1), slices.Delete(r.tokens, 0, 1)
		}
		last := len(r.at) - 1
		if dt := r.at[last].Sub(r.at[0]).Seconds(); dt >= 2 {
			w.TokensPerSec = float64(max(0, r.tokens[last]-r.tokens[0])) / dt
		}
	}
	for id, r := range m.rates {
		if time.Since(r.listed) > rateOver {
			delete(m.rates, id)
		}
	}
}
