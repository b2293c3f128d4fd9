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
	fresh bool // Forward clears it first
	used  bool // by the running batch
}

// statePool allocates and recycles the memory of states.
type statePool struct {
	dev    *device
	bytes  int64 // of a state
	inputs int64 // offset of the convolutions' inputs

	lock   sync.Mutex
	all    []cu.DevicePtr
	free   []cu.DevicePtr
	closed bool
}

// take returns a new state. It allocates device memory if the pool has none free.
func (p *statePool) take() (*state, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if len(p.free) == 0 {
		if err := p.dev.elsewhere(p.grow); err != nil {
			return nil, fmt.Errorf("%s: allocate %d MiB for a document's state, beside %d others: %w",
				p.dev, p.bytes>>20, len(p.all), err)
		}
	}
	n := len(p.free) - 1
	st := &state{pool: p, p: p.free[n], fresh: true}
	p.free = p.free[:n]
	return st, nil
}

// grow allocates memory for one more state. The device's context is current and the lock is held.
func (p *statePool) grow() error {
	m, err := cu.MemAlloc(p.bytes)
	if err != nil {
		return err
	}
	p.all, p.free = append(p.all, m), append(p.free, m)
	return nil
}

// Release returns the state's memory to its engine.
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

// CopyState copies a state. It waits for a running Forward.
func (e *Engine) CopyState(to, from score.State) error {
	e.lock.Lock()
	defer e.lock.Unlock()
	t, ok1 := to.(*state)
	f, ok2 := from.(*state)
	switch {
	case e.closed || e.broken != nil:
		return fmt.Errorf("copy state on %s: %w", e.dev, errors.Join(ErrClosed, e.broken))
	case !ok1 || !ok2 || t == nil || f == nil || t.pool != &e.pool || f.pool != &e.pool:
		return errors.New("copy state: a state belongs to another engine or was released")
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

// close frees all states, on the device's thread.
func (p *statePool) close() error {
	p.lock.Lock()
	defer p.lock.Unlock()
	m := memory{ptrs: p.all}
	p.all, p.free, p.closed = nil, nil, true
	return m.free()
}

// takeStates checks that each of the batch's states belongs to this engine, was not
// released and occurs once, and marks it as used.
func (p *statePool) takeStates(b *score.Batch) error {
	for i, s := range b.States {
		if s == nil {
			continue
		}
		st, ok := s.(*state)
		var err error
		switch {
		case !ok || st == nil || (st.pool != nil && st.pool != p):
			err = fmt.Errorf("the state of sequence %d belongs to another engine", i)
		case st.pool == nil:
			err = fmt.Errorf("the state of sequence %d was released", i)
		case st.used:
			err = fmt.Errorf("the state of sequence %d is in the batch twice", i)
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
