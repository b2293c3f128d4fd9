package curate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"surprisal/internal/curate/where"
	"surprisal/internal/quantile"
	"surprisal/internal/shard"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/pq"
	"surprisal/internal/usage"
)

// FilterOptions configure Filter.
type FilterOptions struct {
	Where      string   // an expression of package where
	By         []string // columns whose values make groups, each with percentiles of its own
	To         string   // DEST
	WithScores bool     // adds the score columns
	DryRun     bool     // counts, writes nothing
	// heldValues is for tests.
	heldValues int
}

// Count is the kept rows and tokens of a group.
type Count struct {
	Group map[string]*string `json:"group,omitempty"` // nil for all rows
	name  string
	// Rows that have a score file line, and their tokens; Unscored rows among
	// them have an error instead of a score.
	Rows       int64 `json:"rows"`
	Unscored   int64 `json:"unscored"`
	Tokens     int64 `json:"tokens"`
	Kept       int64 `json:"kept_rows"`
	KeptTokens int64 `json:"kept_tokens"`
}

// Name is the group's for people.
func (c *Count) Name() string { return c.name }

func (c *Count) add(o *Count) {
	c.Rows += o.Rows
	c.Unscored += o.Unscored
	c.Tokens += o.Tokens
	c.Kept += o.Kept
	c.KeptTokens += o.KeptTokens
}

// Threshold is the value of a percentile.
type Threshold struct {
	Group      map[string]*string `json:"group,omitempty"`
	name       string
	Column     string   `json:"column"`
	Percentile float64  `json:"percentile"`
	Value      *float64 `json:"value"` // null where no row has a value
}

// Name is the group's for people.
func (t *Threshold) Name() string { return t.name }

// Result is the result of Filter.
type Result struct {
	Run         string      `json:"run"`
	Where       string      `json:"where"`
	By          []string    `json:"by,omitempty"`
	To          string      `json:"to,omitempty"`
	DryRun      bool        `json:"dry_run"`
	Files       int         `json:"files"`
	MissingRows int64       `json:"missing_rows,omitempty"` // --partial left them out
	FailedFiles []string    `json:"failed_files,omitempty"` // and these
	Thresholds  []Threshold `json:"thresholds,omitempty"`
	Groups      []Count     `json:"groups,omitempty"`
	Total       Count       `json:"total"`
}

// Filter copies the input's rows that pass, with all their columns.
func (c *Corpus) Filter(ctx context.Context, o FilterOptions) (*Result, error) {
	if err := checkBy(o.By); err != nil {
		return nil, err
	}
	expr, err := where.Parse(o.Where)
	if err != nil {
		return nil, badWhere(err)
	}
	names, _ := expr.Columns()
	kinds, err := c.Kinds(ctx, union(o.By, names, []string{"n_tokens"}))
	if err != nil {
		return nil, err
	}
	cond, err := expr.Bind(kinds)
	if err != nil {
		return nil, badWhere(err)
	}
	req := c.request("filter")
	req.Where, req.By, req.Scored = o.Where, o.By, o.WithScores
	var dest *destination
	if !o.DryRun {
		if dest, err = c.openDest(ctx, o.To, req); err != nil {
			return nil, err
		}
		defer dest.Close()
	} else if o.To != "" {
		if err := c.checkDest(o.To); err != nil {
			return nil, err
		}
	}
	g := newGroups(o.By)
	held := o.heldValues
	if held == 0 {
		held = quantile.Held
	}
	thresholds, err := c.thresholds(ctx, g, cond.Percentiles, kinds, held)
	if err != nil {
		return nil, fmt.Errorf("percentiles: %w", err)
	}
	tally := &tally{}
	err = c.EachFile(ctx, func(ctx context.Context, f *File) error {
		rows, counts, err := c.passing(ctx, f, cond, g, kinds, thresholds)
		if err != nil {
			return err
		}
		tally.add(counts)
		if dest == nil {
			return nil
		}
		return c.copyRows(ctx, dest, f, f.Input.Rel, rows, o.WithScores, "", nil)
	})
	if err != nil {
		return nil, err
	}
	r := &Result{
		Run: c.Manifest.Run, Where: o.Where, By: o.By, To: o.To, DryRun: o.DryRun, Files: len(c.Files),
		MissingRows: c.MissingRows, FailedFiles: c.FailedFiles,
	}
	r.Thresholds = thresholdList(g, cond.Percentiles, thresholds)
	r.Groups, r.Total = tally.list(g)
	if dest != nil {
		return r, dest.finish(ctx, r)
	}
	return r, nil
}

// badWhere makes an error in an expression a usage error.
func badWhere(err error) error {
	var e *where.Error
	if errors.As(err, &e) {
		return usage.Errorf("--where: %w", err)
	}
	return err
}

// passing gives the rows of a file that pass, and counts them by group.
func (c *Corpus) passing(ctx context.Context, f *File, cond *where.Condition, g *groups, kinds map[string]pq.Kind,
	thresholds [][]float64) (*pq.Bitmap, []Count, error) {
	rows, counts := &pq.Bitmap{}, []Count{}
	names := union(g.by, cond.Columns, []string{"n_tokens", "perplexity"})
	tokensAt, pplAt := indexOf(names, "n_tokens"), indexOf(names, "perplexity")
	r, ev := g.grouper(), cond.Evaluator()
	err := c.Scan(ctx, f, names, kinds, func(first int64, n int, v []*pq.Values) error {
		group, err := r.rows(n, v[:len(g.by)])
		if err != nil {
			return err
		}
		b := &where.Batch{N: n, Group: group, Thresholds: thresholds}
		for _, name := range cond.Columns {
			b.Columns = append(b.Columns, v[slices.Index(names, name)])
		}
		tokens, ppl := v[tokensAt], v[pplAt]
		for i := range n {
			for group[i] >= len(counts) {
				counts = append(counts, Count{})
			}
			k := &counts[group[i]]
			k.Rows++
			k.Tokens += tokens.Ints[i]
			if ppl.Null[i] {
				k.Unscored++
			}
		}
		ev.Pass(b, func(i int) {
			rows.Set(first + int64(i))
			k := &counts[group[i]]
			k.Kept++
			k.KeptTokens += tokens.Ints[i]
		})
		return nil
	})
	return rows, counts, err
}

// copyRows writes rows of a file's input to DEST, unless an earlier attempt has.
func (c *Corpus) copyRows(ctx context.Context, dest *destination, f *File, name string, rows *pq.Bitmap, scores bool,
	label string, value func(int64) string) error {
	if dest.has(ctx, f, name) {
		return nil
	}
	if scores && len(f.Scores) == 0 {
		return nil // --partial: no row of it has a score, nor would its file have their columns
	}
	one := *f
	if !scores {
		one.Scores = nil
	}
	o, err := c.open(ctx, &one, true)
	if err != nil {
		return err
	}
	if o.lines != nil {
		err = dest.CopyLines(ctx, name, f.Rows, jsonl.Copy{
			In: o.lines, Rows: rows, Beside: o.scores, Columns: shard.OwnColumns(o.scores), Label: label, Value: value,
		})
	} else {
		cp := pq.Copy{In: o.input, Rows: rows, Label: label, Value: value, Metadata: dest.metadata(), Slots: dest.slots}
		shard.AddScores(&cp, o.scores)
		err = dest.CopyRows(ctx, name, cp)
	}
	err = errors.Join(err, o.close())
	if errors.Is(err, pq.ErrColumn) {
		return usage.Errorf("%w", err)
	}
	return err
}

// tally adds up counts of groups.
type tally struct {
	mu     sync.Mutex
	counts []Count
}

func (t *tally) add(counts []Count) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range counts {
		for i >= len(t.counts) {
			t.counts = append(t.counts, Count{})
		}
		t.counts[i].add(&counts[i])
	}
}

// list gives the groups by name, and all of them together; groups is empty
// where none were asked for.
func (t *tally) list(g *groups) (list []Count, total Count) {
	for _, i := range g.sorted() {
		if i >= len(t.counts) {
			continue
		}
		n := t.counts[i]
		n.Group, n.name = g.object(i), g.name(i)
		total.add(&n)
		if len(g.by) > 0 {
			list = append(list, n)
		}
	}
	return list, total
}

func thresholdList(g *groups, want []where.Percentile, values [][]float64) []Threshold {
	var list []Threshold
	for _, i := range g.sorted() {
		for k, w := range want {
			t := Threshold{Group: g.object(i), name: g.name(i), Column: w.Column, Percentile: w.P}
			// A group that only unscored rows have is met after the thresholds.
			if i < len(values[k]) && !math.IsNaN(values[k][i]) && !math.IsInf(values[k][i], 0) {
				v := values[k][i]
				t.Value = &v
			}
			list = append(list, t)
		}
	}
	return list
}
