package worker

import (
	"context"
	"time"

	"surprisal/internal/score"
)

// item is what feed sends to pack: a document, some that may share their
// contexts, the end of a task, or none of these, which flushes batches that would
// otherwise wait for documents that may not come.
type item struct {
	doc  *document
	docs []*document
	end  *task
}

// step is what forward does once a batch is scored, in order.
type step struct {
	doc *document
	// The inputs off .. off+n-1 of the batch are this document's; the first skip
	// of them are not counted.
	off, n, skip int
	// last: the document is complete.
	last bool
	// release is a state that no later batch needs; a step may be that alone.
	release score.State
	// end: every document of this task is complete.
	end *task
}

// packed is a batch and what to do with its scores.
type packed struct {
	batch score.Batch
	forks []fork // made before the batch is scored
	steps []step
	// What copies of states and the batch took, and the rest of its forward pass.
	copied, forwarded time.Duration
}

func (p *packed) reset() {
	p.batch.Reset()
	clear(p.steps)
	clear(p.forks)
	p.steps, p.forks = p.steps[:0], p.forks[:0]
}

// packer fills batches of budget tokens with documents in the order they come,
// without padding. A sequence that does not fit is split on the grid of
// score.SplitMultiple and carries its state to the next batch; since sequences
// are packed one after another, at most one is carried at a time. What goes on
// from a context that is shared waits for the batch that the context ends in.
type packer struct {
	budget   int
	newState func() (score.State, error)
	in       <-chan item
	free     chan *packed // empty batches, given back by forward
	out      chan<- *packed

	// took is told how long a batch was worked on, without waits; nil: nobody asks.
	took    func(time.Duration)
	spent   time.Duration // on the current batch
	resumed time.Time     // since when it is worked on

	// maxStates bounds the sequences of a batch that have a state; 0: no bound.
	maxStates int

	cur     *packed
	states  int // of the current batch's sequences
	seqs    []sequence
	waiting []waiting // for the current batch
	ready   []waiting // for batches that are on their way; a stack
}

// run packs until in is closed or ctx ends. It closes out.
func (p *packer) run(ctx context.Context) error {
	defer close(p.out)
	for {
		var it item
		var ok bool
		select {
		case it, ok = <-p.in:
		case <-ctx.Done():
			return ctx.Err()
		}
		p.resumed = time.Now()
		if !ok {
			return p.flushAll(ctx)
		}
		err := p.drain(ctx)
		switch {
		case err != nil:
		case it.doc != nil && it.doc.task.dropped() != nil:
		case it.doc != nil:
			err = p.add(ctx, it.doc)
		case it.docs != nil:
			err = p.group(ctx, it.docs)
		case it.end != nil && it.end.unpacked > 0:
			it.end.read = true // its last document ends it
		case it.end != nil:
			err = p.step(ctx, step{end: it.end})
		default:
			err = p.flushAll(ctx)
		}
		if err != nil {
			return err
		}
		p.spent += time.Since(p.resumed)
	}
}

// current is the batch being filled.
func (p *packer) current(ctx context.Context) (*packed, error) {
	if p.cur == nil {
		p.spent += time.Since(p.resumed)
		select {
		case p.cur = <-p.free:
			p.resumed = time.Now()
			p.cur.reset()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return p.cur, nil
}

// step adds s to the current batch. A task's end is not worth waiting for more
// documents when the batch has nothing to score.
func (p *packer) step(ctx context.Context, s step) error {
	cur, err := p.current(ctx)
	if err != nil {
		return err
	}
	cur.steps = append(cur.steps, s)
	if len(cur.batch.IDs) == 0 && (s.end != nil || len(cur.steps) >= maxIdleSteps) {
		return p.flush(ctx)
	}
	return nil
}

// maxIdleSteps bounds a batch of documents that have nothing to score.
const maxIdleSteps = 4096

func (p *packer) flush(ctx context.Context) error {
	if p.cur == nil || len(p.cur.steps) == 0 {
		return nil
	}
	p.cur.batch.Alloc()
	p.spent += time.Since(p.resumed)
	if p.took != nil && len(p.cur.batch.IDs) > 0 {
		p.took(p.spent)
	}
	p.spent = 0
	select {
	case p.out <- p.cur:
		p.resumed = time.Now()
		p.cur, p.states = nil, 0
		p.ready, p.waiting = append(p.ready, p.waiting...), nil
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *packer) add(ctx context.Context, d *document) error {
	opt := &d.task.job.Options
	if d.score.Error != "" {
		return p.step(ctx, step{doc: d, last: true})
	}
	p.seqs, d.score.Truncated = sequences(p.seqs[:0], d, opt)
	if len(p.seqs) == 0 {
		return p.step(ctx, step{doc: d, last: true})
	}
	for i, s := range p.seqs {
		end := endSequence
		if i == len(p.seqs)-1 {
			end = endDocument
		}
		if _, err := p.sequence(ctx, d, s, nil, end); err != nil {
			return err
		}
	}
	return nil
}

// ending is what a sequence's last token ends.
type ending int

const (
	endSequence ending = iota // a window: its state is needed no more
	endDocument               // nor is that of a document
	endStretch                // others go on from its state
)

// sequence packs s into as many batches as it takes, from a state or from zero.
// It gives the state after it at the end of a stretch.
func (p *packer) sequence(ctx context.Context, d *document, s sequence, from *base, end ending) (score.State, error) {
	var state score.State
	for done := 0; done < s.n; {
		cur, err := p.current(ctx)
		if err != nil {
			return nil, err
		}
		n, room := s.n-done, p.budget-len(cur.batch.IDs)
		if n > room {
			n = room - room%score.SplitMultiple
		}
		whole := done+n == s.n
		stateful := from != nil || end == endStretch || !whole || state != nil
		if n == 0 || stateful && p.maxStates > 0 && p.states >= p.maxStates {
			if err := p.flush(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if stateful {
			p.states++
			switch {
			case state != nil:
			case from != nil:
				state, err = p.fork(from)
			default:
				state, err = p.newState()
			}
			if err != nil {
				return nil, err
			}
		}
		st := step{doc: d, off: len(cur.batch.IDs), n: n, skip: min(n, max(0, s.skip-done)), last: end == endDocument && whole}
		if whole && end != endStretch {
			st.release = state
		}
		at := s.first + done
		cur.batch.Append(d.ids[at:at+n], d.ids[at+1:at+n+1], state)
		// A target that is not counted is not computed either.
		for i := range st.skip {
			cur.batch.Targets[st.off+i] = score.NoTarget
		}
		cur.steps = append(cur.steps, st)
		done += n
		if p.budget-len(cur.batch.IDs) < score.SplitMultiple {
			if err := p.flush(ctx); err != nil {
				return nil, err
			}
		}
	}
	return state, nil
}
