//go:build cuda

package gpu

import (
	"errors"
	"fmt"
	"sync"

	"gorgonia.org/cu"

	"surprisal/internal/score"
)

// state is a document's recurrent state between batches: S [layers, HV, K, V]
// fp32, then the short convolutions' inputs [layers, 3, 2 H K + HV V], in
// one piece of device memory.
type state struct {
	pool  *statePool
	p     cu.DevicePtr
	fresh bool // Forward zeroes it first
	used  bool // taken by the batch under way
}

// statePool is the memory of states.
type statePool struct {
	dev    *device
	bytes  int64 // of a state
	inputs int64 // where the convolutions' inputs begin

	lock   sync.Mutex
	all    []cu.DevicePtr
	free   []cu.DevicePtr
	closed bool
}

// take gives a state's memory, from the device when the pool has none.
func (p *statePool) take() (*state, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if len(p.free) == 0 {
		if err := p.dev.elsewhere(p.grow); err != nil {
			return nil, fmt.Errorf("%s: take %d MiB for a document's state, beside %d others: %w", p.dev, p.bytes>>20,
				len(p.all), err)
		}
	}
	n := len(p.free) - 1
	st := &state{pool: p, p: p.free[n], fresh: true}
	p.free = p.free[:n]
	return st, nil
}

// grow takes memory for one more; the device's context is current, the lock held.
func (p *statePool) grow() error {
	m, err := cu.MemAlloc(p.bytes)
	if err != nil {
		return err
	}
	p.all, p.free = append(p.all, m), append(p.free, m)
	return nil
}

// Release gives the state's memory back to its engine.
func (st *state) Release() {
	p := st.pool
	if p == nil {
		return
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	st.pool = nil
	p.free = append(p.free, st.p)
}

// CopyState makes to what from is. It waits for a Forward under way.
func (e *Engine) CopyState(to, from score.State) error {
	e.lock.Lock()
	defer e.lock.Unlock()
	t, ok1 := to.(*state)
	f, ok2 := from.(*state)
	switch {
	case e.closed || e.broken != nil:
		return fmt.Errorf("copy state on %s: %w", e.dev, errors.Join(ErrClosed, e.broken))
	case !ok1 || !ok2 || t == nil || f == nil || t.pool != &e.pool || f.pool != &e.pool:
		return errors.New("copy state: a state is another engine's, or was released")
	case f.fresh:
		t.fresh = true
		return nil
	}
	if err := e.dev.do(func() error { return cu.MemcpyDtoDAsync(t.p, f.p, e.pool.bytes, e.dev.stream) }); err != nil {
		return fmt.Errorf("copy state on %s: %w", e.dev, err)
	}
	t.fresh = false
	return nil
}

// close frees all; on the device's thread.
func (p *statePool) close() error {
	p.lock.Lock()
	defer p.lock.Unlock()
	m := memory{ptrs: p.all}
	p.all, p.free, p.closed = nil, nil, true
	return m.free()
}

// takeStates checks that each state is this engine's, alive and there once, and
// marks it used.
func (p *statePool) takeStates(b *score.Batch) error {
	for i, s := range b.States {
		if s == nil {
			continue
		}
		st, ok := s.(*state)
		var err error
		switch {
		case !ok || st == nil || (st.pool != nil && st.pool != p):
			err = fmt.Errorf("state of sequence %d is another engine's", i)
		case st.pool == nil:
			err = fmt.Errorf("state of sequence %d was released", i)
		case st.used:
			err = fmt.Errorf("state of sequence %d is in the batch twice", i)
		}
		if err != nil {
			dropStates(b.States[:i])
			return err
		}
		st.used = true
	}
	return nil
}

func dropStates(states []score.State) {
	for _, s := range states {
		if s != nil {
			s.(*state).used = false
		}
	}
}
