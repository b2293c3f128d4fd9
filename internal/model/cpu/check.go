package cpu

import (
	"fmt"

	"surprisal/internal/score"
)

// check refuses a batch that Forward could not run safely. Its states' used
// marks are set on success and the caller clears them.
func (e *Engine) check(b *score.Batch) error {
	if err := b.Check(e.cfg.MaxTokens, e.model.VocabSize); err != nil {
		return err
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
