package worker

import (
	"cmp"
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
func packAll(t *testing.T, docs []*document, budget, share, maxStates int,
	flush func(i int) bool) (windows map[*document][][]int32, counted map[*document][]pair, states []*fakeState) {
	t.Helper()
	in, out, free := make(chan item), make(chan *packed), make(chan *packed, 2)
	free <- new(packed)
	free <- new(packed)
	p := &packer{budget: budget, share: share, maxStates: maxStates, in: in, free: free, out: out,
		newState: func() (score.State, error) {
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
		if len(b.IDs) > budget || len(b.NLL) != len(b.IDs) || len(b.Targets) != len(b.IDs) ||
			int(b.CuSeqlens[len(b.CuSeqlens)-1]) != len(b.IDs) {
			t.Fatalf("batch of %d tokens, budget %d", len(b.IDs), budget)
		}
		seq, stateful := 0, 0
		for _, s := range b.States {
			if s != nil {
				stateful++
			}
		}
		if maxStates > 0 && stateful > maxStates {
			t.Fatalf("%d sequences with a state in a batch, %d are allowed", stateful, maxStates)
		}
		for _, st := range pk.steps {
			if st.end != nil {
				ended = true
				continue
			}
			if ended {
				t.Fatal("a document goes on after its task's end")
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
	if share < budget { // long ones end later
		order := func(a, b *document) int { return cmp.Compare(slices.Index(docs, a), slices.Index(docs, b)) }
		slices.SortFunc(finished, order)
	}
	if !ended || !slices.Equal(finished, docs) {
		t.Fatalf("%d of %d documents finished in order, end seen: %v", len(finished), len(docs), ended)
	}
	return windows, counted, states
}

func TestPackerScoresEachTargetOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for trial := range 300 {
		opt := score.Options{Long: []score.LongMode{score.LongCarry, score.LongWindow, score.LongTruncate}[trial%3],
			MaxLength: 1 + rng.IntN(300)}
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
		share := min(budget, score.SplitMultiple*(1+rng.IntN(4)))
		if rng.IntN(4) == 0 {
			share = budget
		}
		windows, counted, states := packAll(t, docs, budget, share, []int{0, 0, 1, 2, 5}[rng.IntN(5)],
			func(int) bool { return rng.IntN(4) == 0 })
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
				t.Fatalf("trial %d document %d (%d ids, %s, L %d): %d targets counted, want %d", trial, i, len(d.ids),
					opt.Long, opt.MaxLength, len(counted[d]), want)
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

// infoEngine has states and a shape, and scores nothing.
type infoEngine struct {
	Engine
	info score.EngineInfo
}

func (e infoEngine) Info() score.EngineInfo         { return e.info }
func (e infoEngine) NewState() (score.State, error) { return new(fakeState), nil }

// TestLongDocumentsSideBySide: long documents share the batches with others, so
// that all but the last few are full and none has much of one document; where the
// long ones are all that is left, they have all of it.
func TestLongDocumentsSideBySide(t *testing.T) {
	const budget, share = 4096, 512
	e := infoEngine{info: score.EngineInfo{MaxTokens: budget, MinDocuments: budget / share, StateBytes: 1 << 20}}
	for _, c := range []struct {
		name  string
		lens  func(i int) int
		n     int
		alone int // batches at the end that may have more of a document, or room
	}{
		{"a long one in 64", func(i int) int { return 100 + max(0, 1-i%64)*19900 }, 640, 20},
		{"books", func(int) int { return 9000 }, 64, 6},
		{"one book", func(int) int { return 40000 }, 1, 11},
		{"none is long", func(i int) int { return 1 + i%500 }, 500, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sizes, most []int
			total, got := 0, 0
			docs := func(yield func([]int32) bool) {
				for i := range c.n {
					total += c.lens(i)
					if !yield(make([]int32, c.lens(i)+1)) {
						return
					}
				}
			}
			err := Pack(t.Context(), e, docs, func(b *score.Batch) error {
				longest := 0
				for i := range b.States {
					longest = max(longest, int(b.CuSeqlens[i+1]-b.CuSeqlens[i]))
				}
				got += len(b.IDs)
				sizes, most = append(sizes, len(b.IDs)), append(most, longest)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if got != total {
				t.Fatalf("%d tokens packed, %d given", got, total)
			}
			for i := range len(sizes) - c.alone {
				if sizes[i] <= budget-score.SplitMultiple || most[i] > share {
					t.Errorf("batch %d of %d has %d tokens, %d of them of one document", i, len(sizes), sizes[i],
						most[i])
				}
			}
			if want := (total+budget-1)/budget + 1; len(sizes) > want {
				t.Errorf("%d batches, %d would do: %v", len(sizes), want, sizes)
			}
		})
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
