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
	// lettersMost is how many dead letters a terminal shows.
	lettersMost = 20
	// lettersEvery is the shortest time between readings: each one reads all letters.
	lettersEvery = 5 * time.Second
	// firstWithin is how long to wait for the first reading of the queue before showing
	// what is known.
	firstWithin = 10 * time.Second
)

// Top shows in a terminal what Server shows in a browser; the same Server gathers it.
type Top struct {
	s *Server

	mu      sync.Mutex
	letters []record.DeadLetter
}

// NewTop makes a Top; it uses only Program, NATS and Log of cfg.
func NewTop(cfg Config) (*Top, error) {
	s, err := New(Config{Program: cfg.Program, NATS: cfg.NATS, Log: cfg.Log})
	return &Top{s: s}, err
}

// shot is the state at one time, as /api/state answers it and dispatcher top --json
// prints it, with the newest dead letters.
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

// Run connects and runs show until ctx or show ends, or connect fails.
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
				t.s.cfg.Log.Warn().Err(err).Msg("could not read the dead letters")
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

// errNoAnswer: connected to NATS, but without an answer.
var errNoAnswer = errors.New("the queue could not be read")

// Once writes the state after the queue has been read.
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

// Follow writes the state at an interval until ctx ends.
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

// first is the state after the first reading of the queue, or after that failed.
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

// looked reports whether the jobs of all runs have been counted, and the dead letters.
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

// write writes one refresh: an object on a line, or tables and an empty line.
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
