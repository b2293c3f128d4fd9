package cpu

import (
	"fmt"

	"surprisal/internal/score"
)

// check refuses a batch that Forward could not run safely. Its states' used
// marks are set on success and the caller clears them.
func (e *Engine) check(b *score.Batch) error {
	t, n := len(b.IDs), len(b.States)
	switch {
	case t > e.cfg.MaxTokens:
		return fmt.Errorf("batch has %d tokens, more than the budget of %d", t, e.cfg.MaxTokens)
	case len(b.Targets) != t:
		return fmt.Errorf("batch has %d ids and %d targets", t, len(b.Targets))
	case len(b.NLL) != t || len(b.Top1) != t:
		return fmt.Errorf("batch has %d ids and room for %d scores: Alloc was not called", t, min(len(b.NLL), len(b.Top1)))
	case t == 0 && n == 0 && len(b.CuSeqlens) <= 1:
		return nil
	case len(b.CuSeqlens) != n+1:
		return fmt.Errorf("batch has %d states and %d sequence bounds", n, len(b.CuSeqlens))
	case b.CuSeqlens[0] != 0 || int(b.CuSeqlens[n]) != t:
		return fmt.Errorf("batch's sequences span %d to %d, its ids are %d", b.CuSeqlens[0], b.CuSeqlens[n], t)
	}
	for i := range n {
		if b.CuSeqlens[i+1] <= b.CuSeqlens[i] {
			return fmt.Errorf("sequence %d spans %d to %d", i, b.CuSeqlens[i], b.CuSeqlens[i+1])
		}
	}
	vocab := int32(e.model.VocabSize)
	for i, id := range b.IDs {
		if id < 0 || id >= vocab {
			return fmt.Errorf("id %d at %d is outside the vocabulary of %d", id, i, vocab)
		}
		if g := b.Targets[i]; g != score.NoTarget && (g < 0 || g >= vocab) {
			return fmt.Errorf("target %d at %d is outside the vocabulary of %d", g, i, vocab)
		}
	}
	return e.takeStates(b)
}

// takeStates checks that each state is this engine's, alive and there once.
func (e *Engine) takeStates(b *score.Batch) error {
	for i, s := range b.States {
		if s == nil {
			continue
		}
		st, ok := s.(*state)
		var err error
		switch {
		case !ok || st == nil:
			err = fmt.Errorf("state of sequence %d is another engine's", i)
		case st.engine == nil:
			err = fmt.Errorf("state of sequence %d was released", i)
		case st.engine != e:
			err = fmt.Errorf("state of sequence %d is another engine's", i)
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
