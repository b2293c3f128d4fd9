package cpu

import (
	"errors"

	"surprisal/internal/score"
)

// state is a document's recurrent state between batches.
type state struct {
	engine *Engine
	// s [layers, HV, K, V] and conv [layers, taps-1, 2 H K + HV V], the inputs of
	// the short convolutions.
	s, conv []float32
	used    bool // taken by the batch under way
}

// freeStates bounds how many released states are kept for later documents.
const freeStates = 4

// NewState gives the state of a document's start, and never an error. It may be
// called while Forward runs.
func (e *Engine) NewState() (score.State, error) {
	e.freeLock.Lock()
	defer e.freeLock.Unlock()
	if n := len(e.free); n > 0 {
		st := e.free[n-1]
		e.free = e.free[:n-1]
		clear(st.s)
		clear(st.conv)
		st.engine = e
		return st, nil
	}
	s, conv := e.stateFloats()
	return &state{engine: e, s: make([]float32, s), conv: make([]float32, conv)}, nil
}

// Release gives the state's memory back to its engine.
func (st *state) Release() {
	e := st.engine
	if e == nil {
		return
	}
	e.freeLock.Lock()
	defer e.freeLock.Unlock()
	st.engine = nil
	if len(e.free) < freeStates {
		// A new wrapper, so that a stale reference stays released.
		e.free = append(e.free, &state{s: st.s, conv: st.conv})
	}
	st.s, st.conv = nil, nil
}

// CopyState makes to what from is. It waits for a Forward under way.
func (e *Engine) CopyState(to, from score.State) error {
	e.lock.Lock()
	defer e.lock.Unlock()
	t, ok1 := to.(*state)
	f, ok2 := from.(*state)
	if !ok1 || !ok2 || t == nil || f == nil || t.engine != e || f.engine != e {
		return errors.New("copy state: a state is another engine's, or was released")
	}
	copy(t.s, f.s)
	copy(t.conv, f.conv)
	return nil
}

// stateFloats is the size of a state's S and of its convolutions' history.
func (e *Engine) stateFloats() (s, conv int) {
	c := e.model
	return c.Layers * c.VHeads * c.K * c.V, c.Layers * e.history() * e.channels()
}

// history is the number of earlier inputs that a short convolution reads.
func (e *Engine) history() int { return max(taps(e.model)-1, 0) }

// channels is the number of columns that pass the short convolutions.
func (e *Engine) channels() int { return 2*e.model.Heads*e.model.K + e.model.VHeads*e.model.V }

// head gives layer l's S [K, V] of value head hv.
func (st *state) head(l, hv int) []float32 {
	c := st.engine.model
	n := c.K * c.V
	return st.s[(l*c.VHeads+hv)*n:][:n]
}

// inputs gives layer l's convolution history [taps-1, 2 H K + HV V]; empty
// without short convolutions.
func (st *state) inputs(l int) []float32 {
	n := st.engine.history() * st.engine.channels()
	return st.conv[l*n:][:n]
}

// keep takes a layer's projections of the rows just scored into the history.
// rows [n, ld] holds the sequence's tokens of this batch.
func (st *state) keep(l int, rows []float32, ld, n int) {
	hist, ch := st.inputs(l), st.engine.channels()
	need := st.engine.history()
	old := max(need-n, 0) // rows of the old history that are still within reach
	copy(hist, hist[(need-old)*ch:])
	for j := old; j < need; j++ {
		copy(hist[j*ch:][:ch], rows[(n-need+j)*ld:])
	}
}
