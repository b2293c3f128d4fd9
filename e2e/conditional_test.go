package e2e

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// pairRow is a question and an answer; nil is null.
type pairRow struct {
	ID       string  `parquet:"id"`
	Question *string `parquet:"question,optional"`
	Answer   *string `parquet:"answer,optional"`
}

// conditionalRow is what a conditional run says of a row.
type conditionalRow struct {
	ID            string   `parquet:"id"`
	Row           int64    `parquet:"row"`
	Tokens        int64    `parquet:"n_tokens"`
	SumNLL        float64  `parquet:"sum_nll"`
	Perplexity    *float64 `parquet:"perplexity,optional"`
	Error         *string  `parquet:"error,optional"`
	ContextTokens int64    `parquet:"n_context_tokens"`
	Greedy        *bool    `parquet:"greedy,optional"`
}

// expectedPairs are of testdata/conditional/make.py.
func expectedPairs(t *testing.T) []struct {
	Context, Target string
	ContextIDs      []int32 `json:"context_ids"`
	TargetIDs       []int32 `json:"target_ids"`
	SumNLL          float64 `json:"sum_nll"`
	Top1            []bool
} {
	t.Helper()
	var f struct {
		Pairs []struct {
			Context, Target string
			ContextIDs      []int32 `json:"context_ids"`
			TargetIDs       []int32 `json:"target_ids"`
			SumNLL          float64 `json:"sum_nll"`
			Top1            []bool
		}
	}
	readJSON(t, "../testdata/conditional/pairs.json", &f)
	return f.Pairs
}

// TestConditionalRun scores answers given questions with two workers and holds
// them to the float64 reference; then other jobs and batches, to the bit.
func TestConditionalRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pairs := expectedPairs(t)
	var rows []pairRow
	for i, p := range pairs {
		rows = append(rows, pairRow{fmt.Sprint("p", i), &p.Context, &p.Target})
	}
	rows = append(rows, pairRow{"no question", nil, ptr("x")}, pairRow{"no answer", ptr("x"), nil},
		pairRow{"bad", ptr("x\xff"), ptr("x")})
	in := filepath.Join(dir, "in", "pairs.parquet")
	writeParquet(t, in, rows, 7)
	args := []string{"run", "--model", demoModel, "--context-column", "question", "--target-column", "answer"}
	out := filepath.Join(dir, "out")
	dispatcher(t, append(args, "--out", out, "--workers", "2", "--job-tokens", "700", in)...).want(t, 0)
	checkPairs(t, out, "null context", "null target", "context is not UTF-8")
	other := filepath.Join(dir, "other")
	dispatcher(t, append(args, "--out", other, "--batch-tokens", "128", "--per-token", in)...).want(t, 0)
	sameScores(t, scores(t, out), scores(t, other))
	for _, o := range []string{out, other} {
		dispatcher(t, "verify", "--rescore", "10", o).want(t, 0)
	}
	r := dispatcher(t, append(args, "--out", filepath.Join(dir, "x"), "--text-column", "answer", in)...).want(t, 2)
	says(t, r.stderr, "--text-column")
	r = dispatcher(t, "run", "--model", demoModel, "--context-column", "question", "--out", filepath.Join(dir, "x"),
		in).want(t, 2)
	says(t, r.stderr, "--context-column and --target-column must be given together")
}

func checkPairs(t *testing.T, out string, problems ...string) {
	t.Helper()
	got := conditionalRows(t, out)
	pairs := expectedPairs(t)
	for i, p := range pairs {
		r := got[i]
		greedy := true
		for _, top := range p.Top1 {
			greedy = greedy && top
		}
		switch {
		case len(p.TargetIDs) == 0:
			if r.Error == nil || r.Greedy != nil || r.Perplexity != nil {
				t.Errorf("%q, %q: %+v", p.Context, p.Target, r)
			}
		case r.Error != nil || r.Tokens != int64(len(p.TargetIDs)) || r.ContextTokens != int64(len(p.ContextIDs)) ||
			r.Greedy == nil ||
			*r.Greedy != greedy || !(math.Abs(r.SumNLL-p.SumNLL) <= 1e-4*float64(r.Tokens)):
			t.Errorf("%q, %q: %+v, want %f", p.Context, p.Target, r, p.SumNLL)
		}
	}
	for i, want := range problems {
		if r := got[len(pairs)+i]; r.Error == nil || *r.Error != want || r.Greedy != nil || r.Tokens != 0 ||
			r.ContextTokens != 0 {
			t.Errorf("%+v, want error %q", r, want)
		}
	}
}

func conditionalRows(t *testing.T, out string) []conditionalRow {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(out, "*", "rows-*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	var all []conditionalRow
	for _, p := range paths {
		rows, err := parquet.ReadFile[conditionalRow](p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rows...)
	}
	return all
}
