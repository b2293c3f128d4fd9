// Package fakescores writes scores that no model made, for tests and benchmarks
// of what comes after scoring. They are a function of the row alone.
package fakescores

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/discover"
	"surprisal/internal/shard/outdir"
)

// Options say what is written.
type Options struct {
	Text     string // the text column; default text
	Keep     []string
	PerToken bool
	// JobTokens cuts files as dispatcher run --job-tokens does; default 4,000,000.
	JobTokens int64
	// Skip leaves a job out, as one that has not been scored; nil leaves out none.
	Skip func(score.Job) bool
}

// Of is the score of a row: log-normal perplexity around 30, every 97th row failed.
func Of(row int64, text string) score.Score {
	s := score.Score{Row: row, Bytes: int64(len(text))}
	if row%97 == 96 {
		s.Error = "not UTF-8"
		return s
	}
	r := rand.New(rand.NewPCG(uint64(row), uint64(len(text))))
	s.Tokens = int64(len(text)+3) / 4
	s.SumNLL = float64(s.Tokens) * (3.4 + .8*r.NormFloat64())
	s.Top1 = s.Tokens / 3
	return s
}

// tokens adds the row's token scores.
func tokens(s *score.Score) {
	if s.Error != "" {
		return
	}
	s.TokenIDs = []int32{0}
	for i := range s.Tokens {
		s.TokenIDs = append(s.TokenIDs, int32(i%1000))
		s.TokenNLL = append(s.TokenNLL, float32(s.SumNLL/float64(s.Tokens)))
	}
}

// Write scores inputs into out and writes the manifest. Called again, it goes on
// where it was cut off.
func Write(ctx context.Context, inputs []string, out string, o Options) (*score.Manifest, error) {
	abs, err := place.Resolve(out)
	if err != nil {
		return nil, err
	}
	if o.Text == "" {
		o.Text = "text"
	}
	if o.JobTokens == 0 {
		o.JobTokens = 4_000_000
	}
	m := &score.Manifest{
		Version: score.FormatVersion, Run: "fake-scores", Created: "2026-01-02T03:04:05Z", Program: "fakescores",
		Out: abs, Inputs: inputs,
		JobTokens: o.JobTokens,
		Options: score.Options{
			TextColumn: o.Text, Keep: o.Keep, PerToken: o.PerToken, Long: score.LongCarry, MaxLength: 2048,
			Special: score.SpecialText, Engine: score.EngineCPU,
		},
		Model: score.Model{Dir: "/none", Name: "fake", Digest: "sha256:00"},
	}
	m.ConfigDigest = score.ConfigDigest(m.Options, m.Model)
	found, problems, err := discover.Inputs(ctx, inputs, abs)
	if err != nil {
		return nil, err
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%s: %w", problems[0].Path, problems[0].Err)
	}
	for _, in := range found {
		p, err := shard.Plan(ctx, in, shard.PlanOptions{Options: m.Options, JobTokens: m.JobTokens})
		if err != nil {
			return nil, err
		}
		m.Files = append(m.Files, p)
	}
	if err := outdir.WriteManifest(ctx, abs, m); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, j := range m.Jobs() {
		if _, err := os.Stat(place.Join(abs, j.Output)); err == nil {
			continue
		}
		if o.Skip == nil || !o.Skip(j) {
			g.Go(func() error { return job(ctx, j) })
		}
	}
	return m, g.Wait()
}

func job(ctx context.Context, j score.Job) error {
	r, err := shard.OpenRange(ctx, j)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := outdir.Create(ctx, j, r.Columns(), shard.Metadata{Precision: "fp32", Engine: "cpu", Device: "none",
		Program: "fakescores"})
	if err != nil {
		return err
	}
	defer w.Abort()
	for {
		row, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		s := Of(row.Index, row.Text)
		if j.Options.PerToken {
			tokens(&s)
		}
		if row.Null {
			s = score.Score{Row: row.Index, Bytes: -1, Error: "null text"}
		}
		if row.Problem != "" {
			s = score.Score{Row: row.Index, Bytes: -1, Error: row.Problem}
		}
		if math.IsNaN(s.SumNLL) {
			return fmt.Errorf("row %d: %v", row.Index, s.SumNLL)
		}
		if err := w.Write(s, row.Kept); err != nil {
			return err
		}
	}
	_, err = w.Commit(ctx)
	return err
}
