package audit

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"surprisal/internal/dispatch"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/usage"
)

// Rescored is the result of rescoring.
type Rescored struct {
	Seed  uint64 `json:"seed"`
	Rows  int    `json:"rows"`
	Equal int    `json:"equal"` // to the last bit
	// Close rows were scored on an instruction set with other bits, and are within setBound.
	Close int `json:"close,omitempty"`
}

// setBound is how far, in nats a token, a document's mean may differ between the CPU
// engine's instruction sets that don't give the same bits (docs/scores.md).
const setBound = 2e-5

// drawn is a row to rescore.
type drawn struct {
	job score.Job
	row int64
	old score.Score
}

// rescore samples rows of the intact files, scores them again with the run's options
// and compares all bits.
func (v *verification) rescore(ctx context.Context) error {
	picks := v.draw()
	v.v.Rescored = &Rescored{Seed: v.req.Seed}
	if err := oldScores(ctx, picks); err != nil {
		return err
	}
	rows := make([]shard.Row, 0, len(picks))
	kept := picks[:0]
	for _, p := range picks {
		row, err := shard.ReadRow(ctx, p.job, p.row)
		if err != nil {
			return err
		}
		if row.Problem != "" {
			continue // token IDs that this program cannot write
		}
		rows, kept = append(rows, row), append(kept, p)
	}
	if len(kept) == 0 {
		return nil
	}
	fresh, set, err := v.scoreAgain(ctx, rows)
	if err != nil {
		return err
	}
	v.v.Rescored.Rows = len(kept)
	for i, p := range kept {
		what := differs(p.old, fresh[i])
		if what == "" {
			v.v.Rescored.Equal++
			continue
		}
		c := v.good[p.job.ID]
		if old := c.Metadata.Set; old != "" && set != "" && !score.SameBits(old, set) && near(p.old, fresh[i]) {
			v.v.Rescored.Close++
			continue
		}
		v.add(Finding{
			Kind: FindScore, File: p.job.Output, Job: p.job.ID, What: fmt.Sprintf("row %d: %s", p.row, what),
			Remedy: fmt.Sprintf("if %s (%s) is a different kind of machine, verify there; otherwise --repair "+
				"quarantines the file", c.Metadata.Device, c.Metadata.Engine),
		})
		v.bad[p.job.Output] = true
	}
	return nil
}

// draw samples rows uniformly without replacement, in order.
func (v *verification) draw() []drawn {
	list := v.m.Jobs()
	list = slices.DeleteFunc(list, func(j score.Job) bool { _, ok := v.good[j.ID]; return !ok })
	ends := make([]int64, len(list)) // rows up to and with each job
	n := int64(0)
	for i, j := range list {
		n += j.Rows()
		ends[i] = n
	}
	rng := rand.New(rand.NewPCG(v.req.Seed, 0))
	chosen := map[int64]bool{}
	for k := min(int64(v.req.Rescore), n); int64(len(chosen)) < k; {
		chosen[rng.Int64N(n)] = true
	}
	picks := make([]drawn, 0, len(chosen))
	for at := range chosen {
		i, _ := slices.BinarySearch(ends, at+1)
		j := list[i]
		picks = append(picks, drawn{job: j, row: j.Last - (ends[i] - 1 - at)})
	}
	slices.SortFunc(picks, func(a, b drawn) int {
		if a.job.ID != b.job.ID {
			return compareJobs(a.job, b.job)
		}
		return int(a.row - b.row)
	})
	return picks
}

// oldScores fills in the committed scores; picks are in order of file and row.
func oldScores(ctx context.Context, picks []drawn) error {
	for i := 0; i < len(picks); {
		j := picks[i].job
		err := shard.ReadScores(ctx, place.Join(j.Out, j.Output), func(s score.Score) error {
			if i < len(picks) && picks[i].job.ID == j.ID && picks[i].row == s.Row {
				picks[i].old = s
				i++
			}
			return nil
		})
		if err != nil {
			return err
		}
		if i < len(picks) && picks[i].job.ID == j.ID {
			return fmt.Errorf("%s has no row %d", j.Output, picks[i].row)
		}
	}
	return nil
}

// scoreAgain scores rows in a temporary folder; set is the instruction set that it used.
func (v *verification) scoreAgain(ctx context.Context, rows []shard.Row) (fresh []score.Score, set string, err error) {
	dir, err := os.MkdirTemp("", "surprisal-rescore-")
	if err != nil {
		return nil, "", fmt.Errorf("create a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	in, out := filepath.Join(dir, "sample.parquet"), filepath.Join(dir, "out")
	o := v.m.Options
	o.Keep, o.PerToken = nil, false // they do not change scores
	if err := shard.WriteRows(in, o, rows); err != nil {
		return nil, "", err
	}
	req := dispatch.Request{
		Inputs: []string{in}, Out: out, ModelDir: v.m.Model.Dir, Tokenizer: v.m.Model.Tokenizer, Options: o,
		JobTokens: v.m.JobTokens,
	}
	m, _, err := dispatch.Plan(ctx, req)
	if err != nil {
		return nil, "", err
	}
	if m.Model.Digest != v.m.Model.Digest || m.Model.TokenizerDigest != v.m.Model.TokenizerDigest {
		return nil, "", usage.Errorf("%s or its tokenizer is not the one that the run used: rows cannot be rescored",
			v.m.Model.Dir)
	}
	sum, err := v.req.Local.Run(ctx, ctx, req)
	if err != nil {
		return nil, "", err
	}
	if !sum.Complete {
		return nil, "", fmt.Errorf("%d of %d jobs of the sample are dead: %s", len(sum.DeadJobs), sum.Jobs,
			sum.DeadJobs[0].Reason)
	}
	for path, err := range outdir.ListOutputs(ctx, out) {
		if err != nil {
			return nil, "", err
		}
		c, err := shard.Inspect(ctx, path)
		if err != nil {
			return nil, "", err
		}
		set = c.Metadata.Set
		if err := shard.ReadScores(ctx, path, func(s score.Score) error {
			fresh = append(fresh, s)
			return nil
		}); err != nil {
			return nil, "", err
		}
	}
	if len(fresh) != len(rows) {
		return nil, "", fmt.Errorf("got %d of %d rows back: %w", len(fresh), len(rows), io.ErrUnexpectedEOF)
	}
	return fresh, set, nil
}

// near reports whether two scores of one row differ only as far as two instruction sets may.
func near(old, now score.Score) bool {
	n := float64(old.Tokens)
	if !(math.Abs(old.SumNLL-now.SumNLL) <= setBound*n) || math.Abs(float64(old.Top1-now.Top1)) > 1+n/1000 {
		return false
	}
	now.SumNLL, now.Top1 = old.SumNLL, old.Top1
	return differs(old, now) == ""
}

// differs describes how two scores of one row differ; empty if they do not.
func differs(old, now score.Score) string {
	switch {
	case old.Error != now.Error:
		return fmt.Sprintf("error %q, rescored %q", old.Error, now.Error)
	case old.Tokens != now.Tokens:
		return fmt.Sprintf("n_tokens %d, rescored %d", old.Tokens, now.Tokens)
	case math.Float64bits(old.SumNLL) != math.Float64bits(now.SumNLL):
		return fmt.Sprintf("sum_nll %v, rescored %v", old.SumNLL, now.SumNLL)
	case old.Top1 != now.Top1:
		return fmt.Sprintf("n_top1 %d, rescored %d", old.Top1, now.Top1)
	case old.ContextTokens != now.ContextTokens:
		return fmt.Sprintf("n_context_tokens %d, rescored %d", old.ContextTokens, now.ContextTokens)
	case old.Bytes != now.Bytes || old.Truncated != now.Truncated:
		return fmt.Sprintf("%d bytes, truncated %t, rescored %d, %t", old.Bytes, old.Truncated, now.Bytes,
			now.Truncated)
	}
	return ""
}

func compareJobs(a, b score.Job) int {
	return cmp.Or(cmp.Compare(a.Input.Rel, b.Input.Rel), cmp.Compare(a.First, b.First))
}
