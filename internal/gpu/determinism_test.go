//go:build cuda

package gpu

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/testkit/modeltest"
)

// lengths are those at which chunks, tiles and batches end.
var lengths = []int{1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 97, 127, 129, 1023, 1025, 4097}

func randomDocs(lens []int, vocab int, seed uint64) []modeltest.Document {
	r := rand.New(rand.NewPCG(seed, 0))
	docs := make([]modeltest.Document, len(lens))
	for i, n := range lens {
		for range n + 1 {
			docs[i].IDs = append(docs[i].IDs, int32(r.IntN(vocab)))
		}
	}
	return docs
}

// sameBits compares two scorings of the same documents.
func sameBits(t testing.TB, what string, a, b []modeltest.Document) {
	t.Helper()
	for i := range a {
		if len(a[i].NLL) != len(a[i].IDs)-1 || len(b[i].NLL) != len(a[i].NLL) {
			t.Fatalf("%s: document %d of %d tokens has %d and %d scores", what, i, len(a[i].IDs)-1, len(a[i].NLL),
				len(b[i].NLL))
		}
		for j := range a[i].NLL {
			if a[i].NLL[j] != b[i].NLL[j] || a[i].Top1[j] != b[i].Top1[j] {
				t.Fatalf("%s: document %d (%d tokens), token %d: %v and %v", what, i, len(a[i].NLL), j, a[i].NLL[j],
					b[i].NLL[j])
			}
		}
	}
}

// sameInOrders scores documents as they stand and shuffled, and compares both with an
// earlier scoring; it gives that, or where there is none its own.
func sameInOrders(t testing.TB, e *Engine, docs, first []modeltest.Document, budget int) []modeltest.Document {
	t.Helper()
	scored := clone(docs)
	modeltest.Score(t, e, scored, nil, budget)
	if first == nil {
		first = scored
	}
	sameBits(t, "another budget", first, scored)
	shuffled := clone(docs)
	modeltest.Score(t, e, shuffled, rand.New(rand.NewPCG(uint64(budget), 1)).Perm(len(docs)), budget)
	sameBits(t, "shuffled", first, shuffled)
	return first
}

func clone(docs []modeltest.Document) []modeltest.Document {
	out := make([]modeltest.Document, len(docs))
	for i, d := range docs {
		out[i].IDs = d.IDs
	}
	return out
}

// TestBits: a document's scores are the same to the last bit alone, in any batch,
// in any order, split anywhere on the grid, and from engines of other budgets.
func TestBits(t *testing.T) {
	needGPU(t)
	names := []string{"kla_128", "gva_128", "k64 v64", "k128 v256", "no conv"}
	if testing.Short() && emulated(t) {
		names = names[:1]
	}
	for _, name := range names {
		for _, simple := range []bool{false, true} {
			if simple && (name != "kla_128" || emulated(t) && testing.Short()) {
				continue
			}
			label := name
			if simple {
				label += " token by token"
			}
			t.Run(label, func(t *testing.T) {
				dir := folder(t, name)
				lens := lengths
				budgets := []int{16384, 2048, 512}
				if emulated(t) {
					lens, budgets = []int{1, 2, 17, 63, 64, 65, 129, 200}, []int{512, 192}
				}
				if emulated(t) && testing.Short() {
					lens, budgets = []int{1, 17, 64, 65, 129}, []int{192}
				}
				var first []modeltest.Document
				for _, budget := range budgets {
					e := open(t, dir, Config{MaxTokens: budget}, options{poison: true, simple: simple})
					docs := randomDocs(lens, e.Info().VocabSize, 5)
					first = sameInOrders(t, e, docs, first, budget)
					again := clone(docs)
					piece := max(score.SplitMultiple, budget/4/score.SplitMultiple*score.SplitMultiple)
					modeltest.Score(t, e, again, nil, piece)
					sameBits(t, "smaller batches", first, again)
					modeltest.SideBySide(t, e, again, score.SplitMultiple*max(1, budget/8/score.SplitMultiple), budget)
					sameBits(t, "side by side", first, again)
					for i := range docs {
						if len(docs[i].IDs) > 300 && emulated(t) {
							continue
						}
						alone := clone(docs[i : i+1])
						modeltest.Score(t, e, alone, nil, budget)
						sameBits(t, "alone", first[i:i+1], alone)
					}
				}
			})
		}
	}
}

// TestTable: scores are the same to the last bit with and without the first layer's
// table, of documents within batches and across them.
func TestTable(t *testing.T) {
	needGPU(t)
	names := []string{"kla_128", "gva_128", "plain_128", "k64 v64", "k128 v256", "no conv", "two taps", "odd widths",
		"wide"}
	lens, budget := lengths, 2048
	if emulated(t) {
		names, lens, budget = names[:len(names)-1], []int{1, 17, 63, 64, 65, 129, 300}, 192
	}
	if emulated(t) && testing.Short() {
		names, lens = []string{"kla_128", "odd widths"}, lens[3:]
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, name)
			var scored [2][]modeltest.Document
			for i, opt := range []options{{poison: true, half: true}, {poison: true, half: true, noTable: true}} {
				e := open(t, dir, Config{MaxTokens: budget}, opt)
				if (e.table != 0) == opt.noTable {
					t.Fatalf("no table asked for: %v; the table: %#x", opt.noTable, e.table)
				}
				for _, n := range []int{budget, 64} {
					docs := randomDocs(lens, e.Info().VocabSize, 11)
					modeltest.Score(t, e, docs, nil, n)
					scored[i] = append(scored[i], docs...)
				}
			}
			sameBits(t, "without the table", scored[0], scored[1])
		})
	}
}

// TestProjected: scores are the same to the last bit whether the recurrence makes its
// operands from the projections or reads what the gates made of them, of documents
// within batches and across them; and as good as the same where the gates round the
// decays on their way.
func TestProjected(t *testing.T) {
	needGPU(t)
	names := []string{"kla_128", "gva_128", "plain_128", "strong_decay_128", "k64 v64", "k64 v128", "k128 v64",
		"k128 v256", "no conv", "two taps"}
	lens, budget := lengths, 2048
	if emulated(t) {
		lens, budget = []int{1, 2, 3, 17, 63, 64, 65, 129, 300}, 192
	}
	if emulated(t) && testing.Short() {
		names, lens = names[:1], lens[4:]
	}
	for _, name := range names {
		for _, half := range []bool{true, false} {
			if !half && emulated(t) && testing.Short() {
				continue
			}
			t.Run(fmt.Sprintf("%s half %v", name, half), func(t *testing.T) {
				dir := folder(t, name)
				scored := func(opt options, still bool) []modeltest.Document {
					e := open(t, dir, Config{MaxTokens: budget}, opt)
					for _, y := range e.w.layers {
						if still { // no decay at all
							put(bench{e, t}, y.rate, make([]float32, e.model.Heads))
						}
					}
					if e.rec.projected == opt.stored {
						t.Fatalf("operands from memory: asked for %v, and not so", opt.stored)
					}
					var all []modeltest.Document
					for _, n := range []int{budget, 64} {
						docs := randomDocs(lens, e.Info().VocabSize, 12)
						modeltest.Score(t, e, docs, nil, n)
						all = append(all, docs...)
					}
					return all
				}
				made, stored := options{poison: true, half: half}, options{poison: true, half: half, stored: true}
				sameBits(t, "operands from memory", scored(made, true), scored(stored, true))
				a, b, square, n := scored(made, false), scored(stored, false), 0.0, 0
				for i := range a {
					for j, x := range a[i].NLL {
						d := float64(x) - float64(b[i].NLL[j])
						square, n = square+d*d, n+1
					}
				}
				if rms := math.Sqrt(square / float64(n)); !(rms < 0.004) && half || !(rms < 0.02) {
					t.Errorf("with decays rounded on their way: rms %.4f nats apart", rms)
				} else {
					t.Logf("with decays rounded on their way: rms %.5f nats apart", rms)
				}
			})
		}
	}
}

// TestLongDocument: one document that fills many batches has the scores of one
// that fits.
func TestLongDocument(t *testing.T) {
	needGPU(t)
	dir, n := filepath.Join(goldens, "kla_128"), 16000
	if emulated(t) {
		n = 700
	}
	if emulated(t) && testing.Short() {
		n = 200
	}
	big := open(t, dir, Config{MaxTokens: (n + 63) / 64 * 64}, options{poison: true})
	whole := randomDocs([]int{n}, big.Info().VocabSize, 3)
	modeltest.Score(t, big, whole, nil, big.Info().MaxTokens)
	small := open(t, dir, Config{MaxTokens: 64}, options{poison: true})
	cut := clone(whole)
	modeltest.Score(t, small, cut, nil, 64)
	sameBits(t, "cut at every 64 tokens", whole, cut)
}

// TestSingleTokens: a batch of as many documents as it has tokens.
func TestSingleTokens(t *testing.T) {
	needGPU(t)
	n := 32768
	if emulated(t) {
		n = 600
	}
	e := open(t, filepath.Join(goldens, "kla_128"), Config{MaxTokens: (n + 63) / 64 * 64}, options{poison: true})
	lens := make([]int, n)
	for i := range lens {
		lens[i] = 1
	}
	docs := randomDocs(lens, e.Info().VocabSize, 9)
	for i := range docs { // the last half repeats the first
		if i >= n/2 {
			docs[i].IDs = docs[i-n/2].IDs
		}
	}
	modeltest.Score(t, e, docs, nil, e.Info().MaxTokens)
	sameBits(t, "the same document twice", docs[:n/2], docs[n/2:n/2*2])
}

// TestCopyState: two documents that begin alike and go on from one copied state
// have the scores that they have whole.
func TestCopyState(t *testing.T) {
	needGPU(t)
	e := open(t, filepath.Join(goldens, "kla_128"), Config{MaxTokens: 256}, options{poison: true})
	docs := randomDocs([]int{150, 150}, e.Info().VocabSize, 6)
	copy(docs[1].IDs[:129], docs[0].IDs[:129])
	modeltest.Score(t, e, docs, nil, 256)
	var st [2]score.State
	for i := range st {
		var err error
		if st[i], err = e.NewState(); err != nil {
			t.Fatal(err)
		}
		defer st[i].Release()
	}
	var b score.Batch
	b.Append(docs[0].IDs[:128], docs[0].IDs[1:129], st[0])
	modeltest.Forward(t, e, &b)
	if err := e.CopyState(st[1], st[0]); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	for i, d := range docs {
		b.Append(d.IDs[128:150], d.IDs[129:151], st[i])
	}
	modeltest.Forward(t, e, &b)
	for i, d := range docs {
		for j := range 22 {
			if got := b.NLL[22*i+j]; got != d.NLL[128+j] {
				t.Fatalf("document %d, token %d: %v, want %v", i, 128+j, got, d.NLL[128+j])
			}
		}
	}
}

// TestTargets: positions without a target get 0 and false, and take no part.
func TestTargets(t *testing.T) {
	needGPU(t)
	e := open(t, filepath.Join(goldens, "kla_128"), Config{MaxTokens: 256}, options{poison: true})
	d := randomDocs([]int{130}, e.Info().VocabSize, 4)
	modeltest.Score(t, e, d, nil, 256)
	var b score.Batch
	targets := append([]int32(nil), d[0].IDs[1:]...)
	for i := range targets {
		if i%3 != 0 {
			targets[i] = score.NoTarget
		}
	}
	b.Append(d[0].IDs[:130], targets, nil)
	modeltest.Forward(t, e, &b)
	for i, v := range b.NLL {
		want, top := d[0].NLL[i], d[0].Top1[i]
		if i%3 != 0 {
			want, top = 0, false
		}
		if v != want || b.Top1[i] != top {
			t.Fatalf("token %d: %v %v, want %v %v", i, v, b.Top1[i], want, top)
		}
	}
	b.Reset()
	for i := range targets {
		targets[i] = score.NoTarget
	}
	b.Append(d[0].IDs[:130], targets, nil)
	modeltest.Forward(t, e, &b)
	b.Reset()
	modeltest.Forward(t, e, &b) // nothing at all
}

// TestRefusals: what can't be run is refused, with a reason, and leaves the engine
// as it was.
func TestRefusals(t *testing.T) {
	needGPU(t)
	dir := filepath.Join(goldens, "kla_128")
	e := open(t, dir, Config{MaxTokens: 128}, options{})
	ctx := context.Background()
	bad := func(what string, b *score.Batch) {
		t.Helper()
		if err := e.Forward(ctx, b); err == nil || strings.Contains(err.Error(), "CUDA error") {
			t.Errorf("%s: %v", what, err)
		}
	}
	batch := func(ids ...int32) *score.Batch {
		b := &score.Batch{}
		b.Append(ids, ids, nil)
		b.Alloc()
		return b
	}
	bad("an id outside the vocabulary", batch(1, int32(e.Info().VocabSize)))
	bad("a negative id", batch(1, -2))
	long := make([]int32, 129)
	bad("a batch over the budget", batch(long...))
	st, err := e.NewState()
	if err != nil {
		t.Fatal(err)
	}
	twice := &score.Batch{}
	twice.Append([]int32{1}, []int32{1}, st)
	twice.Append([]int32{1}, []int32{1}, st)
	twice.Alloc()
	bad("a state twice", twice)
	st.Release()
	released := &score.Batch{}
	released.Append([]int32{1}, []int32{1}, st)
	released.Alloc()
	bad("a released state", released)
	modeltest.Forward(t, e, batch(1, 2, 3))

	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := e.Forward(stopped, batch(1, 2)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	modeltest.Forward(t, e, batch(1, 2, 3)) // as good as before
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Forward(ctx, batch(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
