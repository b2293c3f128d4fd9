package worker

import (
	"context"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

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

// batches in turn: one being packed, one being scored.
const batchesInTurn = 2

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
// without padding. A document that does not fit, or is longer than its share of a
// batch, is split on the grid of score.SplitMultiple and carries its state on: long
// documents go through the same batches side by side, since an engine can't work on
// the end of one before its beginning. What goes on from a context that is shared
// waits for the batch that the context ends in.
type packer struct {
	budget   int
	share    int // most tokens of a document in a batch while others may come
	newState func() (score.State, error)
	in       <-chan item
	free     chan *packed // empty batches, given back by forward
	out      chan *packed

	// took is told how long a batch was worked on, without waits; nil: nobody asks.
	took    func(time.Duration)
	spent   time.Duration // on the current batch
	resumed time.Time     // since when it is worked on

	// maxStates bounds the sequences of a batch that have a state; 0: no bound.
	maxStates int

	cur     *packed
	states  int // of the current batch's sequences
	seqs    []sequence
	carried []*carried // documents that are partly packed
	turn    int        // those before it have been in the current batch
	last    bool       // no document may come that would fill a batch
	waiting []waiting  // for the current batch
	ready   []waiting  // for batches that are on their way; a stack
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
		err := p.goOn(ctx)
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
		p.cur, p.states, p.turn = nil, 0, 0
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
	c := &carried{doc: d, seqs: p.seqs, end: endDocument}
	done, err := p.advance(ctx, c, p.share)
	if err != nil || done {
		return err
	}
	c.seqs = slices.Clone(c.seqs)
	d.task.unpacked++
	p.carried, p.turn = append(p.carried, c), len(p.carried)+1
	return p.flushFull(ctx, true)
}

// carried is a document, or a stretch of contexts, on its way through several batches.
type carried struct {
	doc   *document
	seqs  []sequence  // what is not packed yet
	end   ending      // of the last of them
	from  *base       // whose state it goes on from; nil: zero, or state
	done  int         // inputs of the first that are packed
	state score.State // after those
}

// advance packs c's next tokens into the current batch, as many as it has room for, at
// most share. True: c is complete, and state is what a stretch ends in.
func (p *packer) advance(ctx context.Context, c *carried, share int) (bool, error) {
	cur, err := p.current(ctx)
	if err != nil {
		return false, err
	}
	for len(c.seqs) > 0 {
		s, end := c.seqs[0], endSequence
		if len(c.seqs) == 1 {
			end = c.end
		}
		n, room := s.n-c.done, min(share, p.budget-len(cur.batch.IDs))
		if n > room {
			n = room - room%score.SplitMultiple
		}
		whole := c.done+n == s.n
		stateful := !whole || c.state != nil || c.from != nil || end == endStretch
		if n == 0 || stateful && p.maxStates > 0 && p.states >= p.maxStates {
			return false, nil
		}
		if stateful {
			p.states++
		}
		switch {
		case c.from != nil:
			c.state, err = p.fork(c.from)
			c.from = nil
		case stateful && c.state == nil:
			c.state, err = p.newState()
		}
		if err != nil {
			return false, err
		}
		p.put(c.doc, s, c.done, n, c.state, end)
		share -= n
		if c.done += n; whole {
			c.seqs, c.done = c.seqs[1:], 0
			if end != endStretch {
				c.state = nil
			}
		}
	}
	return true, p.flushFull(ctx, false)
}

// goOn packs what goes on from batches before: what waited for their end, and the
// documents that are partly packed, each once a batch.
func (p *packer) goOn(ctx context.Context) error {
	if err := p.drain(ctx); err != nil {
		return err
	}
	for p.turn < len(p.carried) {
		c := p.carried[p.turn]
		done, err := false, error(nil)
		if c.doc.task.dropped() == nil {
			share := p.share
			if p.last {
				share = max(share, p.budget/len(p.carried))
			}
			done, err = p.advance(ctx, c, share)
		} else if done = true; c.state != nil { // the batch that it comes of may be under way
			err = p.step(ctx, step{release: c.state})
		}
		if err != nil {
			return err
		}
		if !done {
			p.turn++
			err = p.flushFull(ctx, true)
		} else {
			p.carried = slices.DeleteFunc(p.carried, func(o *carried) bool { return o == c })
			err = p.packedOne(ctx, c.doc.task)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// flushFull sends the current batch if nothing that is split has room in it; stopped:
// a document had to stop, which may have been for want of a state.
func (p *packer) flushFull(ctx context.Context, stopped bool) error {
	if p.cur == nil {
		return nil
	}
	if p.budget-len(p.cur.batch.IDs) < score.SplitMultiple || stopped && p.maxStates > 0 && p.states >= p.maxStates {
		return p.flush(ctx)
	}
	return nil
}

// newPacker packs for an engine, in batches of so many tokens.
func newPacker(e Engine, budget int) *packer {
	info := e.Info()
	p := &packer{budget: budget, share: budget, newState: e.NewState, maxStates: batchStates(info),
		free: make(chan *packed, batchesInTurn), out: make(chan *packed)}
	for range batchesInTurn {
		p.free <- new(packed)
	}
	if n := min(info.MinDocuments, p.maxStates); n > 0 {
		p.share = max(budget/n/score.SplitMultiple, 1) * score.SplitMultiple
	}
	return p
}

// Pack packs documents of ids as a worker does for a full corpus, for measurements:
// do gets the batches in order.
func Pack(ctx context.Context, e Engine, docs iter.Seq[[]int32], do func(*score.Batch) error) error {
	p, in := newPacker(e, e.Info().MaxTokens), make(chan item, 64)
	p.in = in
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(in)
		t := new(task)
		for ids := range docs {
			select {
			case in <- item{doc: &document{task: t, ids: ids}}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	g.Go(func() error { return p.run(ctx) })
	g.Go(func() error {
		for b := range p.out {
			if len(b.batch.IDs) > 0 {
				if err := do(&b.batch); err != nil {
					return err
				}
			}
			for _, s := range b.steps {
				if s.release != nil {
					s.release.Release()
				}
			}
			p.free <- b // there is room for all
		}
		return nil
	})
	return g.Wait()
}

// ending is what a sequence's last token ends.
type ending int

const (
	endSequence ending = iota // a window: its state is needed no more
	endDocument               // nor is that of a document
	endStretch                // others go on from its state
)

// put adds n inputs of s, after the first done, to the current batch, which has room.
func (p *packer) put(d *document, s sequence, done, n int, state score.State, end ending) {
	b, whole := &p.cur.batch, done+n == s.n
	st := step{doc: d, off: len(b.IDs), n: n, skip: min(n, max(0, s.skip-done)), last: end == endDocument && whole}
	if whole && end != endStretch {
		st.release = state
	}
	at := s.first + done
	b.Append(d.ids[at:at+n], d.ids[at+1:at+n+1], state)
	// A target that is not counted is not computed either.
	for i := range st.skip {
		b.Targets[st.off+i] = score.NoTarget
	}
	p.cur.steps = append(p.cur.steps, st)
}

// sequence packs a stretch of contexts into as many batches as it takes, from a
// state or from zero. It gives the state after it at the end of a stretch.
func (p *packer) sequence(ctx context.Context, d *document, s sequence, from *base, end ending) (score.State, error) {
	c := &carried{doc: d, seqs: []sequence{s}, end: end, from: from}
	for {
		if done, err := p.advance(ctx, c, p.budget); err != nil || done {
			return c.state, err
		}
		if err := p.flush(ctx); err != nil {
			return nil, err
		}
	}
}
