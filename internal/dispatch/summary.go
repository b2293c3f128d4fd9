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

	"github.com/DataDog/sketches-go/ddsketch"
	"golang.org/x/sync/errgroup"

	"surprisal/internal/failpoint"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
)

// Summary is what a run came to, from its committed files.
type Summary struct {
	Run      string `json:"run"`
	Out      string `json:"out"`
	Complete bool   `json:"complete"` // every row of every file has its line
	Jobs     int    `json:"jobs"`

	Documents  int64 `json:"documents"`
	Tokens     int64 `json:"tokens"`
	Bytes      int64 `json:"bytes"`
	FailedRows int64 `json:"failed_rows"`
	Truncated  int64 `json:"truncated"`

	// Perplexity of the corpus, and of documents by quantile, within 0.1 %.
	CorpusPerplexity float64            `json:"corpus_perplexity,omitempty"`
	BitsPerByte      float64            `json:"bits_per_byte,omitempty"`
	Perplexity       map[string]float64 `json:"perplexity,omitempty"` // p5, p25, p50, p75, p95

	RowErrors   []Reason     `json:"row_errors,omitempty"` // most frequent first
	FailedFiles []FailedFile `json:"failed_files,omitempty"`
	DeadJobs    []DeadJob    `json:"dead_jobs,omitempty"`

	// What jobs took on GPUs, of all commands together: of those that told. A worker
	// charges them with loads and failed attempts too. nil: not known.
	Joules                  *float64 `json:"joules,omitempty"`
	JoulesPerMillionTokens  *float64 `json:"joules_per_million_tokens,omitempty"`
	GPUSeconds              *float64 `json:"gpu_seconds,omitempty"`
	GPUDaysPerBillionTokens *float64 `json:"gpu_days_per_billion_tokens,omitempty"`

	// Of this command alone: what it scored, and how fast.
	Seconds      float64 `json:"seconds"`
	ScoredTokens int64   `json:"scored_tokens"`
	TokensPerSec float64 `json:"tokens_per_second"`
}

// Reason is why rows have no score, and how many.
type Reason struct {
	Error string `json:"error"`
	Rows  int64  `json:"rows"`
}

// FailedFile is an input that could not be scored at all.
type FailedFile struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

// quantiles shown.
var quantiles = []struct {
	name string
	q    float64
}{{"p5", .05}, {"p25", .25}, {"p50", .5}, {"p75", .75}, {"p95", .95}}

// sketchAccuracy is the quantiles' relative error.
const sketchAccuracy = 0.001

// Summarize adds up what c found committed. elapsed and before are this
// command's: how long it took, and what had been committed when it began.
func Summarize(ctx context.Context, m *score.Manifest, c *Committed, dead []DeadJob, before shard.Totals, elapsed time.Duration) (*Summary, error) {
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

// distribution reads the committed scores once.
func (s *Summary) distribution(ctx context.Context, m *score.Manifest, c *Committed) error {
	sketch, err := ddsketch.NewDefaultDDSketch(sketchAccuracy)
	if err != nil {
		return err
	}
	reasons := map[string]int64{}
	var bits, bytes float64
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for j := range m.AllJobs() {
		if !c.Jobs[j.ID] {
			continue
		}
		g.Go(func() error {
			var ppl []float64
			var nll, n float64
			errs := map[string]int64{}
			err := shard.ReadScores(ctx, place.Join(m.Out, j.Output), func(sc score.Score) error {
				if sc.Error != "" {
					errs[sc.Error]++
				}
				if p, ok := sc.Perplexity(); ok && !math.IsInf(p, 0) {
					ppl = append(ppl, p)
				}
				if _, ok := sc.BitsPerByte(); ok {
					nll += sc.SumNLL
					n += float64(sc.Bytes)
				}
				return nil
			})
			mu.Lock()
			defer mu.Unlock()
			for _, p := range ppl {
				if err := sketch.Add(p); err != nil {
					return err
				}
			}
			for e, k := range errs {
				reasons[e] += k
			}
			bits += nll / math.Ln2
			bytes += n
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if bytes > 0 {
		s.BitsPerByte = bits / bytes
	}
	if sketch.GetCount() > 0 {
		s.Perplexity = map[string]float64{}
		for _, q := range quantiles {
			if s.Perplexity[q.name], err = sketch.GetValueAtQuantile(q.q); err != nil {
				return err
			}
		}
	}
	for e, n := range reasons {
		s.RowErrors = append(s.RowErrors, Reason{e, n})
	}
	slices.SortFunc(s.RowErrors, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Rows, a.Rows), cmp.Compare(a.Error, b.Error))
	})
	return nil
}

// Finish writes _SUCCESS when all is there, or makes sure that there is none.
func Finish(ctx context.Context, m *score.Manifest, s *Summary) error {
	if !s.Complete {
		return shard.RemoveSuccess(ctx, m.Out)
	}
	body, err := SuccessBody(m, s)
	if err != nil {
		return err
	}
	if err := failpoint.Hit(failpoint.BeforeSuccess); err != nil {
		return err
	}
	return shard.WriteSuccess(ctx, m.Out, body)
}

// SuccessBody is what _SUCCESS says: only what every command would write alike.
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
