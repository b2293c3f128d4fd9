package modeltest

import (
	"context"
	"math"
	"testing"

	"surprisal/internal/score"
)

// Engine is what Score scores with.
type Engine interface {
	Forward(context.Context, *score.Batch) error
	NewState() (score.State, error)
}

// Document is a document's tokens and what came out for them.
type Document struct {
	IDs  []int32   // IDs[1:] are targets
	NLL  []float32 // nats, one a target
	Top1 []bool
}

// Sum adds up a document's scores in float64.
func Sum(nll []float32) (s float64) {
	for _, v := range nll {
		s += float64(v)
	}
	return s
}

// NewState is the state of a document's start.
func NewState(t testing.TB, e Engine) score.State {
	t.Helper()
	st, err := e.NewState()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// Forward scores a batch whose results were not-a-number before.
func Forward(t testing.TB, e Engine, b *score.Batch) {
	t.Helper()
	b.Alloc()
	for i := range b.NLL {
		b.NLL[i] = float32(math.NaN())
	}
	if err := e.Forward(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

// Score scores documents in the order given (nil: as they are), packed into batches
// of at most budget tokens; a document is split, on the grid, wherever a batch is full.
func Score(t testing.TB, e Engine, docs []Document, order []int, budget int) {
	t.Helper()
	type part struct{ doc, n, at int }
	var b score.Batch
	var parts []part
	flush := func() {
		if len(parts) == 0 {
			return
		}
		Forward(t, e, &b)
		for _, p := range parts {
			d := &docs[p.doc]
			d.NLL = append(d.NLL, b.NLL[p.at:p.at+p.n]...)
			d.Top1 = append(d.Top1, b.Top1[p.at:p.at+p.n]...)
		}
		b.Reset()
		parts = parts[:0]
	}
	if order == nil {
		for i := range docs {
			order = append(order, i)
		}
	}
	for _, i := range order {
		docs[i].NLL, docs[i].Top1 = nil, nil
		in, targets := docs[i].IDs[:len(docs[i].IDs)-1], docs[i].IDs[1:]
		var st score.State
		for at := 0; at < len(in); {
			room, n := budget-len(b.IDs), len(in)-at
			if n > room {
				if n = room / score.SplitMultiple * score.SplitMultiple; n == 0 {
					flush()
					continue
				}
				if st == nil {
					st = NewState(t, e)
				}
			}
			parts = append(parts, part{i, n, len(b.IDs)})
			b.Append(in[at:at+n], targets[at:at+n], st)
			if at += n; at < len(in) {
				flush()
			}
		}
		if st != nil {
			flush() // before the state goes
			st.Release()
		}
	}
	flush()
}

// SideBySide scores docs as Score does, all of them at once: each has at most share
// tokens in a batch and carries its state to the next.
func SideBySide(t testing.TB, e Engine, docs []Document, share, budget int) {
	t.Helper()
	states := make([]score.State, len(docs))
	for i := range docs {
		docs[i].NLL, docs[i].Top1 = nil, nil
		if len(docs[i].IDs)-1 > share {
			states[i] = NewState(t, e)
		}
	}
	for left := true; left; {
		left = false
		var b score.Batch
		var of []int
		for i := range docs {
			d := &docs[i]
			at := len(d.NLL)
			n := min(share, len(d.IDs)-1-at)
			if n == 0 {
				continue
			}
			left = true
			if len(b.IDs)+n > budget {
				break // these first
			}
			of = append(of, i)
			b.Append(d.IDs[at:at+n], d.IDs[at+1:at+n+1], states[i])
		}
		if !left {
			break
		}
		Forward(t, e, &b)
		for n, i := range of {
			lo, hi := b.CuSeqlens[n], b.CuSeqlens[n+1]
			docs[i].NLL = append(docs[i].NLL, b.NLL[lo:hi]...)
			docs[i].Top1 = append(docs[i].Top1, b.Top1[lo:hi]...)
		}
	}
	for _, st := range states {
		if st != nil {
			st.Release()
		}
	}
}
