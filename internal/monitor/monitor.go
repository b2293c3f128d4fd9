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

// Monitor keeps what GetStatus tells current for those who look on for hours: it
// asks for what is small and follows what is large. Of each job of a run that is
// not over it holds about a hundred bytes. It changes nothing.
type Monitor struct {
	client *jobs.Client
	log    zerolog.Logger
	tasks  *errgroup.Group
	every  time.Duration
	finals chan struct{} // one slot for each run that is over and being counted

	mu    sync.Mutex
	runs  map[string]*following
	rates map[string]*workerRate
	over  Overview
	known map[string]*following // runs, as of the last look
}

// Overview is what a Monitor knows.
type Overview struct {
	Status // of all runs, those that are over too, without their dead letters
	// More is how each of Status.Runs fares beyond that, by its place.
	More []RunMore
	// Seen is when the server last answered all that was asked; zero: not yet.
	Seen time.Time
	// Trouble is why what is here is old; nil while the server answers.
	Trouble error
}

// RunMore is what following a run tells beyond its status.
type RunMore struct {
	// Counting: its jobs' records are still being read for the first time.
	Counting   bool
	Failed     int64     // rows without a score, of jobs that are done
	LastDone   time.Time // when a job was last committed
	LastError  string    // of the job that failed or died last
	ErrorSince time.Time // when that was
}

const (
	// leaseEvery is how often it is asked who has a run.
	leaseEvery = 10 * time.Second
	// finalsAtOnce is how many runs that are over are counted at a time.
	finalsAtOnce = 2
	// rateOver is what a worker's rate is averaged over: a batch may take a second.
	rateOver = 10 * time.Second
)

// Config is how a monitor looks.
type Config struct {
	Every time.Duration // between looks at runs, workers and queue; 2 s
	Log   zerolog.Logger
}

func (c Config) withDefaults() Config {
	if c.Every == 0 {
		c.Every = 2 * time.Second
	}
	return c
}

// New makes a monitor; Run makes it look.
func New(client *jobs.Client, cfg Config) *Monitor {
	cfg = cfg.withDefaults()
	return &Monitor{
		client: client, log: cfg.Log, every: cfg.Every, finals: make(chan struct{}, finalsAtOnce), runs: map[string]*following{}, rates: map[string]*workerRate{},
		over: Overview{Status: Status{Runs: []RunStatus{}, Workers: []record.Worker{}}},
	}
}

// Overview gives what is known now. It is the caller's to read, not to change.
func (m *Monitor) Overview() Overview {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.over
}

// Newest gives the ids of a run's jobs in these states, all of them states of
// records, those whose record changed last first, and whether there are more. ok is
// false where the monitor doesn't hold the run's jobs: it is over, or not read yet.
func (m *Monitor) Newest(run string, states []record.State, skip, limit int) (ids []string, more, ok bool) {
	m.mu.Lock()
	t := m.known[run]
	m.mu.Unlock()
	if t == nil || skip < 0 || limit <= 0 {
		return nil, false, false
	}
	return t.newest(states, skip, limit)
}

// Run looks until ctx ends, through whatever becomes of the server, and returns
// nil then. It returns an error where the connection is closed for good.
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

// look asks once.
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
		case <-lost: // what was asked is not answered any more
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
	over := Overview{Status: Status{Runs: []RunStatus{}, Queue: queue, Workers: append([]record.Worker{}, workers...)}, Seen: time.Now()}
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

// slow says what it means that a question's time was over.
func slow(asked context.Context, err error) error {
	switch asked.Err() {
	case context.Canceled:
		return conn.ErrUnreachable
	case context.DeadlineExceeded:
		return fmt.Errorf("%w: no answer within 10s", conn.ErrUnreachable)
	}
	return err
}

// follow has the run's jobs followed while the run lives or workers have it in
// hand, and counted once where it is over.
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
		// Anew: what it had may be of another stream.
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

// workerRate is what a worker had scored a while ago, newest last.
type workerRate struct {
	started time.Time
	listed  time.Time // when it was last listed, by this machine's clock
	at      []time.Time
	tokens  []int64
}

// smooth puts each worker's rate over the last seconds in the place of the last
// second's.
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
