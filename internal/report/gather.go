package report

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sort"
	"sync"
	"time"

	"surprisal/internal/curate"
	"surprisal/internal/shard"
	"surprisal/internal/shard/pq"
	"surprisal/internal/store"
)

// Options select the contents of a report.
type Options struct {
	// By are the columns to show distributions by; nil means dump, language and
	// source, those of them that there are.
	By []string
	// Documents is how many of the best, median and worst are shown each.
	Documents int
	// Tokens gives tokens with their surprisal for documents that OUT has none
	// of; nil leaves their texts without colour.
	Tokens func(ctx context.Context, docs []*curate.Document) (why string, err error)
	// Program is this program's version.
	Program string
}

// minTokens is the minimum length of documents shown as best or worst: the perplexity of
// a few tokens means little.
const minTokens = 16

// Binning on log axes: bins a decade, from 10^low.
const (
	pplBins, pplLow, pplDecades = 20, 0, 9
	bpbBins, bpbLow, bpbDecades = 50, -2, 4
	tokBins, tokLow, tokDecades = 10, 0, 8
)

// histogram counts rows and tokens in bins on a log axis.
type histogram struct {
	per, low int
	rows     []int64
	n        int64
	min, max float64
}

func newHistogram(per, low, decades int) *histogram {
	return &histogram{per: per, low: low, rows: make([]int64, per*decades), min: math.Inf(1), max: math.Inf(-1)}
}

func (h *histogram) bin(x float64) int {
	if !(x > 0) {
		return 0
	}
	i := math.Floor((math.Log10(x) - float64(h.low)) * float64(h.per))
	return int(max(0, min(i, float64(len(h.rows)-1))))
}

func (h *histogram) add(x float64) {
	h.rows[h.bin(x)]++
	h.n++
	h.min, h.max = min(h.min, x), max(h.max, x)
}

// edge is the lower end of bin i.
func (h *histogram) edge(i int) float64 {
	return math.Pow(10, float64(h.low)+float64(i)/float64(h.per))
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.rows {
		h.rows[i] += n
	}
	h.n += o.n
	h.min, h.max = min(h.min, o.min), max(h.max, o.max)
}

// part is the sums over a set of rows.
type part struct {
	name          string
	ppl, bpb, tok *histogram
	rows, tokens  int64
	failed        int64
	nll           float64
}

func newPart(name string) *part {
	return &part{
		name: name, ppl: newHistogram(pplBins, pplLow, pplDecades), bpb: newHistogram(bpbBins, bpbLow, bpbDecades),
		tok: newHistogram(tokBins, tokLow, tokDecades),
	}
}

func (p *part) merge(o *part) {
	p.ppl.merge(o.ppl)
	p.bpb.merge(o.bpb)
	p.tok.merge(o.tok)
	p.rows += o.rows
	p.tokens += o.tokens
	p.failed += o.failed
	p.nll += o.nll
}

func (p *part) perplexity() float64 {
	if p.tokens == 0 {
		return math.NaN()
	}
	return math.Exp(p.nll / float64(p.tokens))
}

// densityBins is how many cells the 2-D density has on each side, in cells a decade.
const (
	densityPerDecade = 8
	densityTok       = tokDecades * densityPerDecade
	densityPpl       = pplDecades * densityPerDecade
)

// candidate is a row that may be shown.
type candidate struct {
	file *curate.File
	row  int64
	key  float64 // smaller is shown first
}

// shortlist keeps the k smallest by key; file and row break ties.
type shortlist struct {
	k    int
	list []candidate
}

func (c candidate) compare(o candidate) int {
	return cmp.Or(cmp.Compare(c.key, o.key), cmp.Compare(c.file.Input.Rel, o.file.Input.Rel), cmp.Compare(c.row, o.row))
}

func (s *shortlist) add(c candidate) {
	if len(s.list) == s.k && (s.k == 0 || c.compare(s.list[s.k-1]) >= 0) {
		return
	}
	i, _ := slices.BinarySearchFunc(s.list, c, candidate.compare)
	s.list = slices.Insert(s.list, i, c)
	s.list = s.list[:min(len(s.list), s.k)]
}

func (s *shortlist) merge(o *shortlist) {
	for _, c := range o.list {
		s.add(c)
	}
}

// commit is a score file's publication.
type commit struct {
	at     time.Time
	tokens int64
}

// maxReasons and maxParts bound what is kept of strings in the corpus.
const (
	maxReasons = 10_000
	maxParts   = 10_000
)

// data is the input of a report's plots and tables.
type data struct {
	all                 *part
	by                  []string
	parts               map[string]map[string]*part // column, value
	density             []int64
	reasons             map[string]int64
	best, median, worst shortlist
	steps               []step
	commits             []commit
	made                map[string]int64 // what engine on what device: rows
}

// step is what a threshold at a percentile of perplexity keeps.
type step struct {
	P       float64 `json:"p"`
	PPL     float64 `json:"ppl"`
	Rows    int64   `json:"rows"`
	Tokens  int64   `json:"tokens"`
	KeptPPL float64 `json:"kept_ppl"`
	nll     float64
}

func newData(o *Options, by []string, steps []step) *data {
	d := &data{
		all: newPart("all"), by: by, parts: map[string]map[string]*part{}, density: make([]int64,
			densityTok*densityPpl),
		reasons: map[string]int64{}, made: map[string]int64{}, steps: slices.Clone(steps),
	}
	for _, b := range by {
		d.parts[b] = map[string]*part{}
	}
	for _, s := range []*shortlist{&d.best, &d.median, &d.worst} {
		s.k = o.Documents
	}
	return d
}

func (d *data) part(column, value string) *part {
	m := d.parts[column]
	p := m[value]
	if p == nil {
		if len(m) >= maxParts {
			value = "(others)"
		}
		if p = m[value]; p == nil {
			p = newPart(value)
			m[value] = p
		}
	}
	return p
}

func (d *data) merge(o *data) {
	d.all.merge(o.all)
	for column, m := range o.parts {
		for v, p := range m {
			d.part(column, v).merge(p)
		}
	}
	for i, n := range o.density {
		d.density[i] += n
	}
	for r, n := range o.reasons {
		d.reason(r, n)
	}
	for m, n := range o.made {
		d.made[m] += n
	}
	d.best.merge(&o.best)
	d.median.merge(&o.median)
	d.worst.merge(&o.worst)
	for i := range d.steps {
		d.steps[i].Rows += o.steps[i].Rows
		d.steps[i].Tokens += o.steps[i].Tokens
		d.steps[i].nll += o.steps[i].nll
	}
	d.commits = append(d.commits, o.commits...)
}

func (d *data) reason(r string, n int64) {
	if _, ok := d.reasons[r]; !ok && len(d.reasons) >= maxReasons {
		r = "(other reasons)"
	}
	d.reasons[r] += n
}

// columns finds which of the requested columns exist.
func columns(ctx context.Context, c *curate.Corpus, o *Options) ([]string, error) {
	if len(o.By) > 0 {
		_, err := c.Kinds(ctx, o.By)
		return o.By, err
	}
	var by []string
	for _, name := range []string{"dump", "language", "source"} {
		if _, err := c.Kinds(ctx, []string{name}); err == nil {
			by = append(by, name)
		}
	}
	return by, ctx.Err()
}

// gather reads the scores: once for the percentiles, once for the rest.
func gather(ctx context.Context, c *curate.Corpus, o *Options) (*data, error) {
	by, err := columns(ctx, c, o)
	if err != nil {
		return nil, err
	}
	ps := make([]float64, 101)
	for i := range ps {
		ps[i] = float64(i)
	}
	limits, err := c.Percentiles(ctx, "perplexity", ps)
	if err != nil {
		return nil, err
	}
	steps := make([]step, len(ps))
	for i := range ps {
		steps[i] = step{P: ps[i], PPL: limits[i]}
	}
	all := newData(o, by, steps)
	var mu sync.Mutex
	err = c.EachFile(ctx, func(ctx context.Context, f *curate.File) error {
		d := newData(o, by, steps)
		if err := d.file(ctx, c, f, by, limits); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		all.merge(d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	// The last step is of all rows, whatever their perplexity.
	for i := 1; i < len(all.steps); i++ {
		all.steps[i].Rows += all.steps[i-1].Rows
		all.steps[i].Tokens += all.steps[i-1].Tokens
		all.steps[i].nll += all.steps[i-1].nll
	}
	for i := range all.steps {
		if s := &all.steps[i]; s.Tokens > 0 {
			s.KeptPPL = math.Exp(s.nll / float64(s.Tokens))
		}
	}
	slices.SortFunc(all.commits, func(a, b commit) int { return a.at.Compare(b.at) })
	return all, nil
}

func (d *data) file(ctx context.Context, c *curate.Corpus, f *curate.File, by []string, limits []float64) error {
	for _, r := range f.Scores {
		made, err := shard.Inspect(ctx, r.Path)
		if err != nil {
			return err
		}
		m := made.Metadata
		d.made[m.Engine+", "+m.Precision+", on "+m.Device+" (version "+m.Program+")"] += made.Totals.Documents
		at, err := store.Modified(ctx, r.Path)
		if err != nil {
			return err
		}
		if !at.IsZero() {
			d.commits = append(d.commits, commit{at, made.Totals.Tokens})
		}
	}
	names := append(slices.Clone(by), "perplexity", "bits_per_byte", "n_tokens", "sum_nll", "error")
	k := len(by)
	mid := limits[50]
	parts := make([]*part, k+1)
	parts[k] = d.all
	return c.Scan(ctx, f, names, nil, func(first int64, n int, v []*pq.Values) error {
		ppl, bpb, tokens, nll, fail := v[k], v[k+1], v[k+2], v[k+3], v[k+4]
		for i := range n {
			for b := range by {
				parts[b] = d.part(by[b], text(v[b], i))
			}
			for _, p := range parts {
				p.rows++
			}
			if !fail.Null[i] {
				for _, p := range parts {
					p.failed++
				}
				d.reason(text(fail, i), 1)
				continue
			}
			t := tokens.Ints[i]
			for _, p := range parts {
				p.tokens += t
				p.nll += nll.Floats[i]
				p.tok.add(float64(t))
				if !bpb.Null[i] {
					p.bpb.add(bpb.Floats[i])
				}
				if !ppl.Null[i] {
					p.ppl.add(ppl.Floats[i])
				}
			}
			if ppl.Null[i] {
				continue
			}
			x := ppl.Floats[i]
			// A limit keeps what is below it.
			s := min(sort.Search(len(limits), func(i int) bool { return limits[i] > x }), len(limits)-1)
			d.steps[s].Rows++
			d.steps[s].Tokens += t
			d.steps[s].nll += nll.Floats[i]
			d.density[cell(float64(t), tokLow, densityTok)*densityPpl+cell(x, pplLow, densityPpl)]++
			if t >= minTokens && !math.IsInf(x, 0) {
				row := candidate{file: f, row: first + int64(i)}
				row.key = x
				d.best.add(row)
				row.key = -x
				d.worst.add(row)
				row.key = math.Abs(math.Log(x / mid))
				d.median.add(row)
			}
		}
		return nil
	})
}

func cell(x float64, low, n int) int {
	i := math.Floor((math.Log10(x) - float64(low)) * densityPerDecade)
	return int(max(0, min(i, float64(n-1))))
}

// text formats a value.
func text(v *pq.Values, i int) string {
	switch {
	case v.Null[i]:
		return "(null)"
	case v.Kind == pq.Text:
		return clip(string(v.Texts[i]), 200)
	case v.Kind == pq.Float:
		return number(v.Floats[i])
	case v.Kind == pq.Bool:
		return map[bool]string{true: "true", false: "false"}[v.Ints[i] != 0]
	}
	return count(v.Ints[i])
}
