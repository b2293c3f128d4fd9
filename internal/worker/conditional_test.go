package worker

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"surprisal/internal/model/cpu"
	"surprisal/internal/model/tokenizer"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/testkit/modeltest"
)

// pairs.json is made by testdata/conditional/make.py with the tokenizers library
// in Python and a float64 model in numpy.
type expectedPair struct {
	Context      string   `json:"context"`
	Target       string   `json:"target"`
	ContextIDs   []int32  `json:"context_ids"`
	TargetIDs    []int32  `json:"target_ids"`
	Bytes        int64    `json:"n_bytes"`
	SumNLL       float64  `json:"sum_nll"`
	Top1         []bool   `json:"top1"`
	TruncatedNLL *float64 `json:"truncated_sum_nll"`
	TruncatedTop []bool   `json:"truncated_top1"`
}

const demoModel = "../../examples/demo/model"

func readPairs(t *testing.T) (maxLength int, pairs []expectedPair) {
	t.Helper()
	var f struct {
		MaxLength int            `json:"max_length"`
		Pairs     []expectedPair `json:"pairs"`
	}
	readJSON(t, "../../testdata/conditional/pairs.json", &f)
	return f.MaxLength, f.Pairs
}

func demoReading(t *testing.T) *reading {
	t.Helper()
	tok, err := tokenizer.Open(demoModel+"/tokenizer.json", tokenizer.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tok.Close)
	return &reading{tokenizer: tok, vocab: tok.VocabSize(), threads: 1, moved: func() {}}
}

func demoEngine(t *testing.T, budget int) Engine {
	t.Helper()
	ckpt, cfg := modeltest.Open(t, demoModel)
	defer func() { _ = ckpt.Close() }()
	e, err := cpu.New(ckpt, cfg, cpu.Config{MaxTokens: budget})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func documents(r *reading, tk *task, pairs []expectedPair) []*document {
	var known contextIDs
	docs := make([]*document, len(pairs))
	for i, p := range pairs {
		docs[i] = r.document(tk, &shard.Row{Index: int64(i), Context: p.Context, Text: p.Target}, &known)
	}
	return docs
}

func conditionalTask(long score.LongMode, maxLength int) *task {
	return &task{job: score.Job{Options: score.Options{
		ContextColumn: "c", TargetColumn: "t", Long: long, MaxLength: maxLength, PerToken: true,
	}}}
}

// scoreGroups packs and scores groups of documents of tk and gives their scores by row.
func scoreGroups(t *testing.T, e Engine, tk *task, maxStates int, groups ...[]*document) []score.Score {
	t.Helper()
	in, out, free := make(chan item), make(chan *packed), make(chan *packed, 2)
	free <- new(packed)
	free <- new(packed)
	p := &packer{budget: e.Info().MaxTokens, share: e.Info().MaxTokens, newState: e.NewState, in: in, free: free,
		out: out, maxStates: maxStates}
	errc := make(chan error, 1)
	go func() { errc <- p.run(t.Context()) }()
	go func() {
		defer close(in)
		for _, g := range groups {
			in <- item{docs: g}
		}
		in <- item{end: tk}
	}()
	tokens, ended := 0, false
	for pk := range out {
		tokens += len(pk.batch.IDs)
		if err := runBatch(t.Context(), e, pk); err != nil {
			t.Fatal(err)
		}
		for i := range pk.steps {
			switch st := &pk.steps[i]; {
			case st.end != nil:
				ended = true
			default:
				if ended {
					t.Error("a document after its task's end")
				}
				st.take(pk.batch.NLL, pk.batch.Top1)
			}
		}
		free <- pk
	}
	if err := <-errc; err != nil || !ended {
		t.Fatalf("error %v, end seen: %v", err, ended)
	}
	t.Logf("%d tokens computed", tokens)
	got := make([]score.Score, len(tk.rows))
	for _, r := range tk.rows {
		got[r.score.Row] = r.score
	}
	return got
}

// TestConditionalTokens: contexts and targets are split as the Python library's
// ids say.
func TestConditionalTokens(t *testing.T) {
	_, pairs := readPairs(t)
	for i, d := range documents(demoReading(t), conditionalTask(score.LongCarry, 4096), pairs) {
		p := pairs[i]
		if len(p.TargetIDs) == 0 {
			if d.score.Error != "the target has no tokens of its own after its context" {
				t.Errorf("%q, %q: %+v", p.Context, p.Target, d.score)
			}
			continue
		}
		want := slices.Concat(p.ContextIDs, p.TargetIDs)
		if !slices.Equal(d.ids, want) || d.context != len(p.ContextIDs) || d.score.Bytes != p.Bytes ||
			d.score.Error != "" {
			t.Errorf("%q, %q: %v, %d of them context, %+v; want %v and %v", p.Context, p.Target, d.ids, d.context,
				d.score, p.ContextIDs, p.TargetIDs)
		}
	}
}

// TestConditionalScores holds scores to a float64 reference, and to the bit to
// each other however documents are packed and whatever they share.
func TestConditionalScores(t *testing.T) {
	maxLength, pairs := readPairs(t)
	r := demoReading(t)
	var whole []score.Score
	for _, budget := range []int{64, 192, 2048} {
		e := demoEngine(t, budget)
		for _, maxStates := range []int{1, 3, 256} {
			tk := conditionalTask(score.LongCarry, 4096)
			got := scoreGroups(t, e, tk, maxStates, documents(r, tk, pairs))
			tk = conditionalTask(score.LongCarry, 4096)
			var alone [][]*document
			for _, d := range documents(r, tk, pairs) {
				alone = append(alone, []*document{d})
			}
			if whole == nil {
				whole = scoreGroups(t, e, tk, 0, alone...)
			}
			for i := range got {
				if fmt.Sprint(got[i]) != fmt.Sprint(whole[i]) {
					t.Fatalf("budget %d, %d states: %+v\nalone %+v", budget, maxStates, got[i], whole[i])
				}
			}
		}
		if budget == 2048 {
			tk := conditionalTask(score.LongTruncate, maxLength)
			got := scoreGroups(t, e, tk, 256, documents(r, tk, pairs))
			for i, p := range pairs {
				switch {
				case len(p.TargetIDs) == 0:
				case p.TruncatedNLL == nil:
					if want := fmt.Sprintf("the target has %d tokens, more than the %d of --max-length",
						len(p.TargetIDs), maxLength); got[i].Error != want {
						t.Errorf("%+v, want %q", got[i], want)
					}
				default:
					cut := len(p.ContextIDs)+len(p.TargetIDs)-1 > maxLength
					near(t, p, got[i], *p.TruncatedNLL, p.TruncatedTop, cut)
				}
			}
		}
	}
	for i, p := range pairs {
		if len(p.TargetIDs) > 0 {
			near(t, p, whole[i], p.SumNLL, p.Top1, false)
			if whole[i].ContextTokens != int64(len(p.ContextIDs)) ||
				whole[i].TokenIDs[0] != p.ContextIDs[len(p.ContextIDs)-1] {
				t.Errorf("%+v, want %d context tokens", whole[i], len(p.ContextIDs))
			}
		}
	}
}

func near(t *testing.T, p expectedPair, got score.Score, sum float64, top []bool, truncated bool) {
	t.Helper()
	greedy, ok := got.Greedy()
	first := 0
	for _, b := range top {
		if b {
			first++
		}
	}
	off := math.Abs(got.SumNLL-sum) / float64(len(top))
	if !(off <= 1e-4) || got.Tokens != int64(len(top)) || !ok || greedy != (first == len(top)) ||
		got.Top1 != int64(first) || got.Truncated != truncated {
		t.Errorf("%q, %q: %+v, want %f, %d of %d first choice (off by %.1e a token)", p.Context, p.Target, got, sum,
			first, len(top), off)
	}
}

// recorder is an engine whose states are what was put into them, and whose scores
// are of the sequence so far.
type recorder struct {
	budget   int
	states   []*recorded
	computed int
}

type recorded struct {
	ids      []int32
	released int
}

func (s *recorded) Release() { s.released++ }

func (e *recorder) NewState() (score.State, error) {
	s := new(recorded)
	e.states = append(e.states, s)
	return s, nil
}

func (e *recorder) CopyState(to, from score.State) error {
	to.(*recorded).ids = slices.Clone(from.(*recorded).ids)
	return nil
}
func (e *recorder) Info() score.EngineInfo { return score.EngineInfo{MaxTokens: e.budget} }
func (e *recorder) Close() error           { return nil }

func (e *recorder) Forward(_ context.Context, b *score.Batch) error {
	e.computed += len(b.IDs)
	for n, st := range b.States {
		var before []int32
		if st != nil {
			s := st.(*recorded)
			if s.released > 0 || len(s.ids)%score.SplitMultiple != 0 {
				return fmt.Errorf("a state after %d tokens, released %d times", len(s.ids), s.released)
			}
			before = s.ids
		}
		for i := b.CuSeqlens[n]; i < b.CuSeqlens[n+1]; i++ {
			before = append(before, b.IDs[i])
			if b.Targets[i] != score.NoTarget {
				b.NLL[i] = sumOf(before) + float32(b.Targets[i])
			}
		}
		if st != nil {
			st.(*recorded).ids = before
		}
	}
	return nil
}

func sumOf(ids []int32) float32 {
	h := uint32(2166136261)
	for _, id := range ids {
		h = (h ^ uint32(id)) * 16777619
	}
	return float32(h >> 12)
}

// TestSharing packs documents whose contexts are drawn from trees and checks that
// each target is scored after just what comes before it, that every state is
// given back, and that what is shared is computed once.
func TestSharing(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for trial := range 200 {
		e := &recorder{budget: score.SplitMultiple * (1 + rng.IntN(8))}
		tk := conditionalTask(score.LongCarry, 1<<20)
		var docs []*document
		pieces := [][]int32{}
		for range 6 {
			p := make([]int32, rng.IntN(200))
			for i := range p {
				p[i] = rng.Int32N(50)
			}
			pieces = append(pieces, p)
		}
		for i := range 1 + rng.IntN(40) {
			d := &document{task: tk, ids: []int32{1}, score: score.Score{Row: int64(i)}}
			for range rng.IntN(5) {
				d.ids = append(d.ids, pieces[rng.IntN(len(pieces))]...)
			}
			if d.context = len(d.ids); rng.IntN(9) == 0 {
				d.score.Error = "bad"
			}
			for range 1 + rng.IntN(100) {
				d.ids = append(d.ids, rng.Int32N(50))
			}
			docs = append(docs, d)
		}
		ids := map[int64][]int32{}
		contexts := map[int64]int{}
		for _, d := range docs {
			ids[d.score.Row], contexts[d.score.Row] = d.ids, d.context
		}
		half := rng.IntN(len(docs))
		groups := [][]*document{docs[half:]}
		if half > 0 {
			groups = append(groups, docs[:half])
		}
		for _, s := range scoreGroups(t, e, tk, 1+rng.IntN(12), groups...) {
			if s.Error != "" {
				continue
			}
			all, c := ids[s.Row], contexts[s.Row]
			if s.Tokens != int64(len(all)-c) {
				t.Fatalf("trial %d: %d tokens of %d after %d", trial, s.Tokens, len(all), c)
			}
			for i, nll := range s.TokenNLL {
				if want := sumOf(all[:c+i]) + float32(all[c+i]); nll != want {
					t.Fatalf("trial %d row %d: target %d was scored after something else", trial, s.Row, i)
				}
			}
		}
		for i, s := range e.states {
			if s.released != 1 {
				t.Fatalf("trial %d: state %d was released %d times", trial, i, s.released)
			}
		}
	}
	// 12 rows of one context of 640 tokens, in two groups of contexts.
	e := &recorder{budget: 256}
	tk := conditionalTask(score.LongCarry, 1<<20)
	var docs []*document
	for i := range 24 {
		d := &document{task: tk, context: 640, score: score.Score{Row: int64(i)}}
		for k := range 650 {
			d.ids = append(d.ids, int32(k+i%2*max(0, k-300)+i*max(0, k-639)))
		}
		docs = append(docs, d)
	}
	scoreGroups(t, e, tk, 8, docs)
	// 256 for all; 320 more for each kind; the 73 up to the last target for each.
	if want := 256 + 2*320 + 24*(649-576); e.computed != want {
		t.Errorf("%d tokens computed, want %d", e.computed, want)
	}
}
