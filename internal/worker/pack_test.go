package worker

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"surprisal/internal/score"
)

// fakeState records that it was given back once.
type fakeState struct{ released int }

func (s *fakeState) Release() { s.released++ }

// pair is one scored position.
type pair struct{ in, target int32 }

// packAll packs docs and gives, for each, the windows that the engine sees: each
// from zero state, with the inputs and the targets counted.
func packAll(t *testing.T, docs []*document, budget int, flush func(i int) bool) (windows map[*document][][]int32, counted map[*document][]pair, states []*fakeState) {
	t.Helper()
	in, out, free := make(chan item), make(chan *packed), make(chan *packed, 2)
	free <- new(packed)
	free <- new(packed)
	p := &packer{budget: budget, in: in, free: free, out: out, newState: func() (score.State, error) {
		s := new(fakeState)
		states = append(states, s)
		return s, nil
	}}
	ctx := t.Context()
	errc := make(chan error, 1)
	go func() { errc <- p.run(ctx) }()
	go func() {
		defer close(in)
		for i, d := range docs {
			in <- item{doc: d}
			if flush(i) {
				in <- item{}
			}
		}
		in <- item{end: docs[0].task}
	}()
	windows, counted = map[*document][][]int32{}, map[*document][]pair{}
	var finished []*document
	open := map[score.State]bool{}
	ended := false
	for pk := range out {
		b := &pk.batch
		if len(b.IDs) > budget || len(b.NLL) != len(b.IDs) || len(b.Targets) != len(b.IDs) || int(b.CuSeqlens[len(b.CuSeqlens)-1]) != len(b.IDs) {
			t.Fatalf("batch of %d tokens, budget %d", len(b.IDs), budget)
		}
		seq := 0
		for _, st := range pk.steps {
			if st.end != nil {
				ended = true
				continue
			}
			d := st.doc
			if st.n > 0 {
				if int(b.CuSeqlens[seq]) != st.off || int(b.CuSeqlens[seq+1]) != st.off+st.n {
					t.Fatalf("cu_seqlens %v, step at %d of %d", b.CuSeqlens, st.off, st.n)
				}
				state := b.States[seq]
				seq++
				ids := b.IDs[st.off : st.off+st.n]
				if state != nil && open[state] {
					w := windows[d]
					if len(w[len(w)-1])%score.SplitMultiple != 0 {
						t.Fatalf("split after %d tokens", len(w[len(w)-1]))
					}
					w[len(w)-1] = append(w[len(w)-1], ids...)
				} else {
					windows[d] = append(windows[d], slices.Clone(ids))
				}
				if state != nil {
					open[state] = st.release == nil
				}
				for i := range st.n {
					target := b.Targets[st.off+i]
					if (i < st.skip) != (target == score.NoTarget) {
						t.Fatalf("target %d of step %+v is %d", i, st, target)
					}
					if i >= st.skip {
						counted[d] = append(counted[d], pair{ids[i], target})
					}
				}
			}
			if st.release != nil {
				st.release.Release()
			}
			if st.last {
				finished = append(finished, d)
			}
		}
		if seq != len(b.States) {
			t.Fatalf("%d sequences, %d of them in steps", len(b.States), seq)
		}
		free <- pk
	}
	if err := <-errc; err != nil {
		t.Fatal(err)
	}
	if !ended || !slices.Equal(finished, docs) {
		t.Fatalf("%d of %d documents finished in order, end seen: %v", len(finished), len(docs), ended)
	}
	return windows, counted, states
}

func TestPackerScoresEachTargetOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for trial := range 300 {
		opt := score.Options{Long: []score.LongMode{score.LongCarry, score.LongWindow, score.LongTruncate}[trial%3], MaxLength: 1 + rng.IntN(300)}
		budget := score.SplitMultiple * (1 + rng.IntN(6))
		tk := &task{job: score.Job{Options: opt}}
		var docs []*document
		for range 1 + rng.IntN(20) {
			d := &document{task: tk}
			for n := []int{0, 1, 2, 63, 64, 65, 66, rng.IntN(900)}[rng.IntN(8)]; len(d.ids) < n; {
				d.ids = append(d.ids, rng.Int32N(1000))
			}
			if rng.IntN(8) == 0 {
				d.ids, d.score.Error = nil, "bad"
			}
			docs = append(docs, d)
		}
		windows, counted, states := packAll(t, docs, budget, func(int) bool { return rng.IntN(4) == 0 })
		for i, s := range states {
			if s.released != 1 {
				t.Fatalf("trial %d: state %d was released %d times", trial, i, s.released)
			}
		}
		for i, d := range docs {
			want := max(len(d.ids)-1, 0)
			cut := opt.Long == score.LongTruncate && want > opt.MaxLength
			if cut {
				want = opt.MaxLength
			}
			if d.score.Truncated != cut {
				t.Fatalf("trial %d document %d: truncated %v", trial, i, d.score.Truncated)
			}
			if len(counted[d]) != want {
				t.Fatalf("trial %d document %d (%d ids, %s, L %d): %d targets counted, want %d", trial, i, len(d.ids), opt.Long, opt.MaxLength, len(counted[d]), want)
			}
			for k, p := range counted[d] {
				if p != (pair{d.ids[k], d.ids[k+1]}) {
					t.Fatalf("trial %d document %d: target %d is %v", trial, i, k, p)
				}
			}
			for _, w := range windows[d] {
				if long := opt.Long == score.LongWindow && want > opt.MaxLength; long && len(w) != opt.MaxLength {
					t.Fatalf("trial %d document %d: a window of %d inputs, L is %d", trial, i, len(w), opt.MaxLength)
				}
			}
		}
	}
}

func TestPackerStopsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := &packer{budget: 64, in: make(chan item), free: make(chan *packed), out: make(chan *packed)}
	cancel()
	if err := p.run(ctx); err == nil {
		t.Fatal("run went on without its context")
	}
}
