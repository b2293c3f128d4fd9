package worker

import (
	"context"
	"slices"

	"surprisal/internal/score"
)

// Documents whose contexts begin alike are computed alike up to there, so that
// is done once: a tree of stretches, each from one multiple of
// score.SplitMultiple to another, and at its leaves what is each document's own.
// The state at a stretch's end is copied for each that goes on from it. Since
// splits on that grid change no bit, sharing changes none.

// maxSharingDepth bounds the stretches between a document's start and its leaf,
// and with it the states that are alive: a few-shot prompt, a question, and two more.
const maxSharingDepth = 4

// stretch is a stretch of context that several documents share, or the rest of one.
type stretch struct {
	doc      *document // whose ids are computed
	from, to int       // the inputs doc.ids[from:to]
	next     []stretch // go on from to, two at least; none: the rest of doc
}

// stretches makes the trees of documents, which it puts in the order of their ids.
func stretches(docs []*document) []stretch {
	slices.SortStableFunc(docs, func(a, b *document) int { return slices.Compare(a.shareable(), b.shareable()) })
	return branch(docs, 0, 0)
}

// shareable are the inputs that others may share: all of the grid before the
// first whose target is scored.
func (d *document) shareable() []int32 {
	n := max(d.context-1, 0)
	return d.ids[:n-n%score.SplitMultiple]
}

// branch cuts documents whose first from inputs are alike, in the order of stretches.
func branch(docs []*document, from, depth int) []stretch {
	var list []stretch
	for i := 0; i < len(docs); {
		d, j := docs[i], i+1
		if mine := d.shareable(); depth < maxSharingDepth && len(mine) > from {
			step := mine[from : from+score.SplitMultiple]
			for ; j < len(docs); j++ {
				if s := docs[j].shareable(); !slices.Equal(s[from:from+score.SplitMultiple], step) {
					break
				}
			}
		}
		if j == i+1 {
			list = append(list, stretch{doc: d, from: from, to: len(d.ids) - 1})
		} else {
			// Between the first and the last in order, all are alike as far as these two.
			to := alike(d.shareable(), docs[j-1].shareable())
			list = append(list, stretch{doc: d, from: from, to: to, next: branch(docs[i:j], to, depth+1)})
		}
		i = j
	}
	return list
}

// alike is how far two lists are equal, on the grid.
func alike(a, b []int32) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n - n%score.SplitMultiple
}

// base is a state that several stretches go on from; the last takes it.
type base struct {
	state score.State
	users int
}

// fork is a copy that forward makes before its batch.
type fork struct{ to, from score.State }

// waiting are stretches that go on from a state.
type waiting struct {
	from *base
	list []stretch
}

// group packs documents that may share their contexts.
func (p *packer) group(ctx context.Context, docs []*document) error {
	var scored []*document
	if docs[0].task.dropped() != nil {
		return nil
	}
	for _, d := range docs {
		d.task.unpacked++
		if d.score.Error == "" {
			scored = append(scored, d)
			continue
		}
		if err := p.step(ctx, step{doc: d, last: true}); err != nil {
			return err
		}
		if err := p.packedOne(ctx, d.task); err != nil {
			return err
		}
	}
	for _, s := range stretches(scored) {
		if err := p.drain(ctx); err != nil {
			return err
		}
		if err := p.stretch(ctx, &s, nil); err != nil {
			return err
		}
	}
	return nil
}

// stretch packs s; what goes on from it waits for the batch that s ends in.
func (p *packer) stretch(ctx context.Context, s *stretch, from *base) error {
	d := s.doc
	if d.task.dropped() != nil {
		return p.pass(ctx, s, from)
	}
	seq := sequence{first: s.from, n: s.to - s.from, skip: min(s.to, d.context-1) - s.from}
	if s.next == nil {
		if _, err := p.sequence(ctx, d, seq, from, endDocument); err != nil {
			return err
		}
		return p.packedOne(ctx, d.task)
	}
	state, err := p.sequence(ctx, d, seq, from, endStretch)
	if err != nil {
		return err
	}
	w := waiting{&base{state, len(s.next)}, s.next}
	if p.cur == nil { // its batch was full and is on its way
		p.ready = append(p.ready, w)
	} else {
		p.waiting = append(p.waiting, w)
	}
	return nil
}

// pass passes over what goes on from a state and is not wanted any more.
func (p *packer) pass(ctx context.Context, s *stretch, from *base) error {
	if from != nil {
		if from.users--; from.users == 0 { // the batch that it comes of may be under way
			if err := p.step(ctx, step{release: from.state}); err != nil {
				return err
			}
		}
	}
	for i := range s.next {
		if err := p.pass(ctx, &s.next[i], nil); err != nil {
			return err
		}
	}
	if s.next == nil {
		return p.packedOne(ctx, s.doc.task)
	}
	return nil
}

// drain packs what goes on from batches that are on their way, the newest first,
// so that few states are alive.
func (p *packer) drain(ctx context.Context) error {
	for len(p.ready) > 0 {
		w := &p.ready[len(p.ready)-1]
		s, from := w.list[0], w.from
		if w.list = w.list[1:]; len(w.list) == 0 {
			p.ready = p.ready[:len(p.ready)-1]
		}
		if err := p.stretch(ctx, &s, from); err != nil {
			return err
		}
	}
	return nil
}

// flushAll packs all that waits and sends it.
func (p *packer) flushAll(ctx context.Context) error {
	p.last = true
	defer func() { p.last = false }()
	for {
		if err := p.goOn(ctx); err != nil {
			return err
		}
		if err := p.flush(ctx); err != nil {
			return err
		}
		if len(p.ready)+len(p.carried) == 0 {
			return nil
		}
	}
}

// packedOne counts a document of a group, or one that was carried; the last ends
// its task, if that has been read.
func (p *packer) packedOne(ctx context.Context, t *task) error {
	if t.unpacked--; t.unpacked == 0 && t.read {
		return p.step(ctx, step{end: t})
	}
	return nil
}

// fork gives a state like from's for a sequence of the current batch.
func (p *packer) fork(from *base) (score.State, error) {
	if from.users--; from.users == 0 {
		return from.state, nil
	}
	st, err := p.newState()
	if err != nil {
		return nil, err
	}
	p.cur.forks = append(p.cur.forks, fork{to: st, from: from.state})
	return st, nil
}

// Memory for the states of one batch; up to some six batches' may be alive.
const (
	stateBytes    = 512 << 20
	mostStates    = 256
	unknownStates = 32
)

// batchStates is how many sequences of a batch may have a state.
func batchStates(info score.EngineInfo) int {
	if info.StateBytes <= 0 {
		return unknownStates
	}
	return int(min(max(stateBytes/info.StateBytes, 2), mostStates))
}
