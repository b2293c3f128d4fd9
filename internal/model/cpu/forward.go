package cpu

/*
#include "kernels.h"
*/
import "C"

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"surprisal/internal/score"
)

// Forward scores a batch: NLL [T] in nats and Top1 [T], which the caller has
// allocated, and the states after each sequence's last token. A score that is
// not finite stays in its own document. ctx is looked at between layers; after an
// error the scores and the batch's states hold nothing of use.
func (e *Engine) Forward(ctx context.Context, b *score.Batch) error {
	e.lock.Lock()
	defer e.lock.Unlock()
	if e.closed {
		return fmt.Errorf("forward: %w", ErrClosed)
	}
	if err := e.check(b); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	defer dropStates(b.States)
	t := len(b.IDs)
	e.plotWalk(b)
	e.stage(project, func() {
		e.tiles(t, func(w *worker, first, last int) {
			e.embed(b, first, last)
			e.project(w, 0, first, last)
		})
	})
	for l := range e.layers {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("forward: before layer %d of %d: %w", l, len(e.layers), err)
		}
		e.stage(prepare, func() {
			e.tiles(t, func(_ *worker, first, last int) { e.prepare(b, l, first, last) })
			e.keepInputs(b, l)
		})
		e.stage(walk, func() { e.walk(b, l) })
		e.stage(finish, func() {
			e.tiles(t, func(w *worker, first, last int) {
				e.finish(w, l, first, last)
				if l+1 < len(e.layers) {
					e.project(w, l+1, first, last)
				}
			})
		})
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("forward: before the head: %w", err)
	}
	e.stage(loss, func() { e.loss(b) })
	return nil
}

// embed writes x [first:last] from the embedding.
func (e *Engine) embed(b *score.Batch, first, last int) {
	d := e.model.Width
	for t := first; t < last; t++ {
		copy(e.x[t*e.ldx:][:d], e.embedding[int(b.IDs[t])*d:])
	}
}

// project is p = rmsnorm(x) [q|k|v|b|w|f|g|eta] and e = f_proj.1(f), by row.
func (e *Engine) project(w *worker, l, first, last int) {
	y, n := &e.layers[l], last-first
	e.norm(w, y.norm1, first, n)
	p := e.p[first*e.ldp:]
	y.proj.mulTo(p, e.ldp, w.norm, e.ldx, n, false)
	y.decay.mulTo(e.e[first*e.ldk:], e.ldk, p[e.cols.f:], e.ldp, n, false)
}

// norm is w.norm [n] = rmsnorm(x[first:first+n]) * weight.
func (e *Engine) norm(w *worker, weight []float32, first, n int) {
	C.sp_rmsnorm(e.set, ptr(e.x[first*e.ldx:]), C.int64_t(e.ldx), nil, ptr(weight), ptr(w.norm), C.int64_t(e.ldx),
		C.int64_t(n), C.int64_t(e.model.Width), C.float(e.model.NormEps))
}

// prepare takes rows first..last-1 from projections to the walk's operands,
// sequence by sequence.
func (e *Engine) prepare(b *score.Batch, l, first, last int) {
	n, found := slices.BinarySearch(b.CuSeqlens, int32(first))
	if !found {
		n--
	}
	for t := first; t < last; n++ {
		start, end := int(b.CuSeqlens[n]), min(int(b.CuSeqlens[n+1]), last)
		var hist *C.float
		if b.States[n] != nil {
			hist = ptr(b.States[n].(*state).inputs(l))
		}
		C.sp_prepare(e.set, &e.mixers[l], C.int64_t(t), C.int64_t(end), C.int64_t(start), hist)
		t = end
	}
}

// keepInputs saves what the next batch's short convolutions will read.
func (e *Engine) keepInputs(b *score.Batch, l int) {
	for n, s := range b.States {
		if s != nil {
			first, last := int(b.CuSeqlens[n]), int(b.CuSeqlens[n+1])
			s.(*state).keep(l, e.p[first*e.ldp:], e.ldp, last-first)
		}
	}
}

// plotWalk orders the sequences by length, so that the longest walks start first.
func (e *Engine) plotWalk(b *score.Batch) {
	e.order = e.order[:len(b.States)]
	for n := range e.order {
		e.order[n] = int32(n)
	}
	slices.SortFunc(e.order, func(i, j int32) int {
		return cmp.Or(cmp.Compare(b.CuSeqlens[j+1]-b.CuSeqlens[j], b.CuSeqlens[i+1]-b.CuSeqlens[i]), cmp.Compare(i, j))
	})
}

// walk runs the recurrence, a task for each (sequence, value head, slice of V).
func (e *Engine) walk(b *score.Batch, l int) {
	c := e.model
	slice := int(e.set.slice)
	perHead := (c.V + slice - 1) / slice
	perSeq := c.VHeads * perHead
	e.parallel(len(e.order)*perSeq, func(w *worker, i int) {
		n, hv, v0 := e.order[i/perSeq], i%perSeq/perHead, i%perHead*slice
		var s *C.float
		if b.States[n] != nil {
			s = ptr(b.States[n].(*state).head(l, hv))
		}
		C.sp_walk(e.set, &e.mixers[l], C.int64_t(hv), C.int64_t(v0), C.int64_t(min(c.V-v0, slice)),
			C.int64_t(b.CuSeqlens[n]), C.int64_t(b.CuSeqlens[n+1]), s, ptr(w.slice))
	})
}

// finish is x += o_proj(gated norm of o), x += swiglu(rmsnorm(x)), by row.
func (e *Engine) finish(w *worker, l, first, last int) {
	y, n := &e.layers[l], last-first
	x, p := e.x[first*e.ldx:], e.p[first*e.ldp:]
	y.gate.mulTo(w.wide, e.ldWide, p[e.cols.g:], e.ldp, n, false)
	C.sp_gate(e.set, &e.mixers[l], C.int64_t(first), C.int64_t(last), ptr(w.wide), C.int64_t(e.ldWide))
	y.out.mulTo(x, e.ldx, w.wide, e.ldWide, n, true)

	e.norm(w, y.norm2, first, n)
	y.up.mulTo(w.wide, e.ldWide, w.norm, e.ldx, n, false)
	C.sp_swiglu(e.set, ptr(w.wide), C.int64_t(e.ldWide), ptr(y.upBias), C.int64_t(n), C.int64_t(e.model.Inner))
	y.down.mulTo(x, e.ldx, w.wide, e.ldWide, n, true)
	if y.downBias != nil {
		C.sp_add_bias(e.set, ptr(x), C.int64_t(e.ldx), ptr(y.downBias), C.int64_t(n), C.int64_t(e.model.Width))
	}
}

// loss scores the positions that have a target, and no others.
func (e *Engine) loss(b *score.Batch) {
	targets := e.targets[:0]
	for t, g := range b.Targets {
		b.NLL[t], b.Top1[t] = 0, false
		if g != score.NoTarget {
			targets = append(targets, int32(t))
		}
	}
	e.tiles(len(targets), func(w *worker, first, last int) {
		at := targets[first:last]
		rows := C.int64_t(len(at))
		C.sp_rmsnorm(e.set, ptr(e.x), C.int64_t(e.ldx), (*C.int32_t)(&at[0]), ptr(e.lnF), ptr(w.norm), C.int64_t(e.ldx),
			rows, C.int64_t(e.model.Width), C.float(e.model.NormEps))
		for i, t := range at {
			w.target[i] = b.Targets[t]
		}
		goal := (*C.int32_t)(&w.target[0])
		C.sp_loss_start(&w.loss[0], rows)
		for i, m := range e.head {
			m.mulTo(w.wide, e.ldWide, w.norm, e.ldx, len(at), false)
			C.sp_loss_block(e.set, &w.loss[0], ptr(w.wide), C.int64_t(e.ldWide), goal, C.int64_t(i*vocabBlock), rows,
				C.int64_t(m.out))
		}
		C.sp_loss_end(&w.loss[0], goal, ptr(w.nll), (*C.uint8_t)(&w.top1[0]), rows)
		for i, t := range at {
			b.NLL[t], b.Top1[t] = w.nll[i], w.top1[i] != 0
		}
	})
}
