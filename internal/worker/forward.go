package worker

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"surprisal/internal/failpoint"
	"surprisal/internal/metrics"
)

// forward scores batches in order, gives each document its part and passes
// finished tasks to commit. It is the only caller of the engine. It closes done.
func (s *session) forward(ctx context.Context, in <-chan *packed, free chan<- *packed, done chan<- *task) error {
	defer close(done)
	defer s.w.idle.wait(true)
	for {
		var p *packed
		var ok bool
		s.w.idle.wait(true)
		select {
		case p, ok = <-in:
			s.w.idle.wait(false)
			if !ok {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := failpoint.Hit(failpoint.MidForward); err != nil {
			return s.engineFailed(p, err)
		}
		if len(p.batch.IDs) > 0 {
			if err := runBatch(ctx, s.model.engine, p); err != nil {
				return s.engineFailed(p, err)
			}
			s.w.meter.Took(metrics.PhaseCopy, p.copied)
			s.w.meter.Took(metrics.PhaseForward, p.forwarded)
			s.trace(p)
			s.w.meter.Batch(len(p.batch.IDs), s.budget, s.flops)
			s.w.forwarded.Add(int64(len(p.batch.IDs)))
		}
		s.w.tasks.moved()
		for i := range p.steps {
			st := &p.steps[i]
			if st.end == nil && st.doc == nil {
				st.release.Release()
				continue
			}
			if st.end == nil {
				s.w.tokensDone.Add(int64(st.n - st.skip))
				if st.take(p.batch.NLL, p.batch.Top1) {
					s.w.meter.NonFinite()
				}
				continue
			}
			start := time.Now()
			select {
			case done <- st.end:
			case <-ctx.Done():
				return ctx.Err()
			}
			s.w.meter.Idle(metrics.CauseWriting, time.Since(start)) // commit is behind
		}
		select {
		case free <- p:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// trace adds the forward pass that has just ended to each job that has tokens in it.
func (s *session) trace(p *packed) {
	if s.w.cfg.Traces == nil {
		return
	}
	end := time.Now()
	tokens := map[*task]int{}
	for i := range p.steps {
		if d := p.steps[i].doc; d != nil {
			tokens[d.task] += p.steps[i].n
		}
	}
	for t, n := range tokens {
		if n > 0 {
			t.trace.Span(string(metrics.PhaseForward), end.Add(-p.forwarded), end, "tokens", n)
		}
	}
}

// runBatch copies the states that the batch goes on from and scores it.
func runBatch(ctx context.Context, e Engine, p *packed) error {
	start := time.Now()
	for _, f := range p.forks {
		if err := e.CopyState(f.to, f.from); err != nil {
			return err
		}
	}
	forked := time.Now()
	err := e.Forward(ctx, &p.batch)
	p.copied = forked.Sub(start) + p.batch.Copied
	p.forwarded = time.Since(forked) - p.batch.Copied
	return err
}

// engineFailed says what the engine failed on. It may be what broke it, so those
// jobs count an attempt.
func (s *session) engineFailed(p *packed, err error) error {
	for i := range p.steps {
		if st := &p.steps[i]; st.doc != nil && !slices.Contains(s.failed, st.doc.task) {
			s.failed = append(s.failed, st.doc.task)
		}
	}
	ids := make([]string, len(s.failed))
	for i, t := range s.failed {
		ids[i] = t.job.ID
	}
	info := s.model.engine.Info()
	return fmt.Errorf("%s engine on %s: batch of %d tokens in %d sequences (jobs %s): %w", info.Kind, info.Device,
		len(p.batch.IDs), len(p.batch.CuSeqlens)-1, strings.Join(ids, " "), err)
}

// take adds the step's part of a batch to its document. Sums run in token order
// in float64, so that they don't depend on where the document was split. True: the
// document is complete, and a score of it is not finite.
func (s *step) take(nll []float32, top1 []bool) (nonFinite bool) {
	d := s.doc
	sc := &d.score
	perToken := d.task.job.Options.PerToken
	for i := s.off + s.skip; i < s.off+s.n; i++ {
		v := nll[i]
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			sc.Error = fmt.Sprintf("the model gave a score that is not finite at token %d", sc.Tokens+1)
		}
		sc.SumNLL += float64(v)
		sc.Tokens++
		if top1[i] {
			sc.Top1++
		}
		if perToken {
			sc.TokenNLL = append(sc.TokenNLL, v)
		}
	}
	d.task.tokens.Add(int64(s.n - s.skip))
	if s.release != nil {
		s.release.Release()
	}
	if !s.last {
		return false
	}
	t := d.task
	nonFinite = sc.Error != "" && sc.Tokens > 0
	if sc.Error != "" {
		sc.Tokens, sc.SumNLL, sc.Top1, sc.TokenNLL = 0, 0, 0, nil
	} else if perToken && len(d.ids) > 0 {
		from := max(d.context-1, 0)
		sc.TokenIDs = d.ids[from:][:sc.Tokens+1]
	}
	t.rows = append(t.rows, row{score: *sc, kept: d.kept})
	t.documents.Add(1)
	s.doc, d.ids = nil, nil
	return nonFinite
}
