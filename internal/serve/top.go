package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
)

const (
	// lettersMost is how many dead letters a terminal is shown.
	lettersMost = 20
	// lettersEvery is how often they are read at most: each time reads all.
	lettersEvery = 5 * time.Second
	// firstWithin is how long a first look at the queue may take until what is known
	// is shown as it is.
	firstWithin = 10 * time.Second
)

// Top shows in a terminal what Server shows in a browser: the same Server gathers it.
type Top struct {
	s *Server

	mu      sync.Mutex
	letters []record.DeadLetter
}

// NewTop makes one; of cfg only Program, NATS and Log count.
func NewTop(cfg Config) (*Top, error) {
	s, err := New(Config{Program: cfg.Program, NATS: cfg.NATS, Log: cfg.Log})
	return &Top{s: s}, err
}

// shot is what there is to show at one time: the answer of /api/state, for which
// dispatcher top --json is another way, and the newest dead letters.
type shot struct {
	view
	Letters []record.DeadLetter `json:"letters"`
}

// shot makes one for a query.
func (t *Top) shot(st state, q query) shot {
	t.mu.Lock()
	defer t.mu.Unlock()
	return shot{t.s.view(st, q), append([]record.DeadLetter{}, t.letters...)}
}

// Run connects, has show called until ctx or show ends, and ends then itself. An
// error of connect ends it too.
func (t *Top) Run(ctx context.Context, connect func(context.Context) (*jobs.Client, error),
	show func(context.Context) error) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.s.Run(ctx, connect) })
	g.Go(func() error { return t.keepLetters(ctx) })
	g.Go(func() error {
		defer end()
		return show(ctx)
	})
	return g.Wait()
}

// keepLetters reads the dead letters again whenever their number changes.
func (t *Top) keepLetters(ctx context.Context) error {
	dead := 0
	for {
		st, changed := t.s.current()
		wait := time.Duration(0)
		if st.link.OK && st.fleet.Dead != dead {
			list, _, err := t.s.letters(ctx, "", 0, lettersMost)
			if err != nil && ctx.Err() == nil {
				t.s.cfg.Log.Warn().Err(err).Msg("dead letters not read")
			}
			if err == nil {
				dead = st.fleet.Dead
				t.mu.Lock()
				t.letters = list
				t.mu.Unlock()
			}
			wait = lettersEvery
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// errNoAnswer: NATS was reached and told nothing.
var errNoAnswer = errors.New("the queue was not read")

// Once writes what there is to show, when the queue has been looked at.
func (t *Top) Once(ctx context.Context, out io.Writer, asJSON bool) error {
	st, err := t.first(ctx)
	if err != nil {
		return err
	}
	if err := t.write(out, st, asJSON); err != nil {
		return err
	}
	if !st.link.OK {
		return fmt.Errorf("%w: %s", errNoAnswer, st.link.Why)
	}
	return nil
}

// Follow writes it every so often until ctx ends.
func (t *Top) Follow(ctx context.Context, out io.Writer, every time.Duration, asJSON bool) error {
	st, err := t.first(ctx)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for err == nil {
		if err := t.write(out, st, asJSON); err != nil {
			return err
		}
		select {
		case <-tick.C:
			st, _ = t.s.current()
		case <-ctx.Done():
			return nil
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// first is what is known when the queue has been looked at, or cannot be.
func (t *Top) first(ctx context.Context) (state, error) {
	late := time.After(firstWithin)
	for {
		st, changed := t.s.current()
		if t.looked(st) {
			return st, nil
		}
		select {
		case <-changed:
		case <-late:
			return st, nil
		case <-ctx.Done():
			return st, context.Cause(ctx)
		}
	}
}

// looked tells whether all that runs have was counted, dead letters among it.
func (t *Top) looked(st state) bool {
	for i := range st.runs {
		if st.runs[i].Counting {
			return false
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return st.link.OK && (st.fleet.Dead == 0 || len(t.letters) > 0)
}

// write is one refresh: an object on a line, or tables and an empty line.
func (t *Top) write(out io.Writer, st state, asJSON bool) error {
	s := t.shot(st, query{size: cellsMost})
	if asJSON {
		return json.NewEncoder(out).Encode(s)
	}
	for _, l := range (screen{}).lines(s) {
		if _, err := fmt.Fprintln(out, l); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(out)
	return err
}
