package dispatch

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/failpoint"
	"surprisal/internal/place"
	"surprisal/internal/quantile"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
)

// Summary is a run's result, from its committed files.
type Summary struct {
	Run      string `json:"run"`
	Out      string `json:"out"`
	Complete bool   `json:"complete"` // every row of every file has a score or an error
	Jobs     int    `json:"jobs"`

	Documents  int64 `json:"documents"`
	Tokens     int64 `json:"tokens"`
	Bytes      int64 `json:"bytes"`
	FailedRows int64 `json:"failed_rows"`
	Truncated  int64 `json:"truncated"`

	// Perplexity of the corpus, and exact percentiles of the documents' perplexities; a
	// percentile that is infinite is left out.
	CorpusPerplexity float64            `json:"corpus_perplexity,omitempty"`
	BitsPerByte      float64            `json:"bits_per_byte,omitempty"`
	Perplexity       map[string]float64 `json:"perplexity,omitempty"` // p5, p25, p50, p75, p95

	RowErrors   []Reason     `json:"row_errors,omitempty"` // most frequent first
	FailedFiles []FailedFile `json:"failed_files,omitempty"`
	DeadJobs    []DeadJob    `json:"dead_jobs,omitempty"`

	// Workers of this command's own that exited unexpectedly, by number.
	WorkerFailures []WorkerFailure `json:"worker_failures,omitempty"`

	// Energy and GPU time of the jobs that reported them, over all commands. They
	// include loading models and failed attempts. nil: unknown.
	Joules                  *float64 `json:"joules,omitempty"`
	JoulesPerMillionTokens  *float64 `json:"joules_per_million_tokens,omitempty"`
	GPUSeconds              *float64 `json:"gpu_seconds,omitempty"`
	GPUDaysPerBillionTokens *float64 `json:"gpu_days_per_billion_tokens,omitempty"`

	// Of this command alone.
	Seconds      float64 `json:"seconds"`
	ScoredTokens int64   `json:"scored_tokens"`
	TokensPerSec float64 `json:"tokens_per_second"`
}

// Reason is an error of rows, and how many have it.
type Reason struct {
	Error string `json:"error"`
	Rows  int64  `json:"rows"`
}

// FailedFile is an input that could not be planned.
type FailedFile struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// percentiles of the summary.
var percentiles = []struct {
	name string
	quantile.Percentile
}{
	{"p5", quantile.Percentile{P: 5}}, {"p25", quantile.Percentile{P: 25}}, {"p50", quantile.Percentile{P: 50}},
	{"p75", quantile.Percentile{P: 75}}, {"p95", quantile.Percentile{P: 95}},
}

// Summarize adds up the committed files. elapsed is how long this command took, and
// before what had been committed when it began.
func Summarize(
	ctx context.Context, m *score.Manifest, c *Committed, dead []DeadJob, before shard.Totals, elapsed time.Duration,
) (*Summary, error) {
	t := c.Totals
	s := &Summary{
		Run: m.Run, Out: m.Out, Jobs: m.JobCount(), Documents: t.Documents, Tokens: t.Tokens, Bytes: t.Bytes,
		FailedRows: t.Failed, Truncated: t.Truncated, DeadJobs: dead,
		Seconds: elapsed.Seconds(), ScoredTokens: t.Tokens - before.Tokens,
	}
	if s.Seconds > 0 {
		s.TokensPerSec = float64(s.ScoredTokens) / s.Seconds
	}
	if t.Tokens > 0 {
		s.CorpusPerplexity = math.Exp(t.SumNLL / float64(t.Tokens))
	}
	for _, f := range m.Files {
		if f.Error != "" {
			s.FailedFiles = append(s.FailedFiles, FailedFile{File: f.Input.Rel, Error: f.Error})
		}
	}
	s.Complete = len(s.FailedFiles) == 0 && len(c.Jobs) == s.Jobs
	if err := s.distribution(ctx, m, c); err != nil {
		return nil, fmt.Errorf("summarize %s: %w", m.Out, err)
	}
	return s, nil
}

// distribution reads the committed scores: once, and again where there are too many
// documents for exact percentiles in one pass.
func (s *Summary) distribution(ctx context.Context, m *score.Manifest, c *Committed) error {
	d := &distribution{reasons: map[string]int64{}}
	want := make([]quantile.Percentile, len(percentiles))
	for i, p := range percentiles {
		want[i] = p.Percentile
	}
	seen := false
	found, err := quantile.Find(want, quantile.Held, func() int { return 1 }, func(p *quantile.Pass) error {
		first := !seen
		seen = true
		return d.pass(ctx, m, c, p, first)
	})
	if err != nil {
		return err
	}
	if d.bytes > 0 {
		s.BitsPerByte = d.bits / d.bytes
	}
	for i, p := range percentiles {
		if v := found[i][0]; !math.IsNaN(v) && !math.IsInf(v, 0) {
			if s.Perplexity == nil {
				s.Perplexity = map[string]float64{}
			}
			s.Perplexity[p.name] = v
		}
	}
	for e, n := range d.reasons {
		s.RowErrors = append(s.RowErrors, Reason{e, n})
	}
	slices.SortFunc(s.RowErrors, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), cmp.Compare(a.Error, b.Error))
	})
	return nil
}

// distribution is what is added up over the rows of all files.
type distribution struct {
	mu          sync.Mutex
	reasons     map[string]int64
	bits, bytes float64
}

// pass gives p the perplexity of every document; the first one adds up the rest too.
func (d *distribution) pass(ctx context.Context, m *score.Manifest, c *Committed, p *quantile.Pass, first bool) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for j := range m.AllJobs() {
		if !c.Jobs[j.ID] {
			continue
		}
		g.Go(func() error {
			one := distribution{reasons: map[string]int64{}}
			perplexity := make([]quantile.Values, 1)
			err := shard.ReadScores(ctx, place.Join(m.Out, j.Output), func(sc score.Score) error {
				if sc.Error != "" {
					one.reasons[sc.Error]++
				}
				if x, ok := sc.Perplexity(); ok {
					if perplexity[0].Add(0, x); len(perplexity[0].Values) == quantile.Batch {
						p.Add(perplexity)
					}
				}
				if _, ok := sc.BitsPerByte(); ok {
					one.bits += sc.SumNLL
					one.bytes += float64(sc.Bytes)
				}
				return nil
			})
			p.Add(perplexity)
			if first {
				d.add(&one)
			}
			return err
		})
	}
	return g.Wait()
}

func (d *distribution) add(one *distribution) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for e, n := range one.reasons {
		d.reasons[e] += n
	}
	d.bits += one.bits / math.Ln2
	d.bytes += one.bytes
}

// Finish writes _SUCCESS if the run is complete, and otherwise deletes it.
func Finish(ctx context.Context, m *score.Manifest, s *Summary) error {
	if !s.Complete {
		return outdir.RemoveSuccess(ctx, m.Out)
	}
	body, err := SuccessBody(m, s)
	if err != nil {
		return err
	}
	if err := failpoint.Hit(failpoint.BeforeSuccess); err != nil {
		return err
	}
	return outdir.WriteSuccess(ctx, m.Out, body)
}

// SuccessBody is the content of _SUCCESS, which is the same whichever command
// writes it.
func SuccessBody(m *score.Manifest, s *Summary) ([]byte, error) {
	body, err := json.MarshalIndent(map[string]any{
		"run": s.Run, "config_digest": m.ConfigDigest, "jobs": s.Jobs, "documents": s.Documents,
		"tokens": s.Tokens, "bytes": s.Bytes, "failed_rows": s.FailedRows, "truncated": s.Truncated,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("finish run %s: %w", s.Run, err)
	}
	return append(body, '\n'), nil
}
