package curate

import (
	"context"
	"fmt"
	"math"

	"surprisal/internal/curate/where"
	"surprisal/internal/quantile"
	"surprisal/internal/shard/pq"
	"surprisal/internal/usage"
)

// Buckets are CCNet's: below the 30th percentile of perplexity is head, below
// the 60th middle, the rest tail. Rows without a perplexity are in none.
var Buckets = []string{"head", "middle", "tail"}

// unscored is the folder of the rows that are in no bucket.
const unscored = "unscored"

var bucketPercentiles = []where.Percentile{{Column: "perplexity", P: 30}, {Column: "perplexity", P: 60}}

// BucketOptions configure Bucket.
type BucketOptions struct {
	By []string // columns whose values make groups, each with percentiles of its own
	As string   // column or folders
	To string   // DEST
}

// Bucketed is the result of Bucket.
type Bucketed struct {
	Run         string      `json:"run"`
	By          []string    `json:"by,omitempty"`
	As          string      `json:"as"`
	To          string      `json:"to"`
	Files       int         `json:"files"`
	MissingRows int64       `json:"missing_rows,omitempty"` // --partial left them out
	FailedFiles []string    `json:"failed_files,omitempty"` // and these
	Thresholds  []Threshold `json:"thresholds"`
	Buckets     []Count     `json:"buckets"` // head, middle, tail and, if there are any, unscored
}

// Bucket sorts the input's rows into head, middle and tail of their group: into
// a column, all rows staying in their files, or into folders of these names.
func (c *Corpus) Bucket(ctx context.Context, o BucketOptions) (*Bucketed, error) {
	if err := checkBy(o.By); err != nil {
		return nil, err
	}
	if o.As != "column" && o.As != "folders" {
		return nil, usage.Errorf("--as %s is not one of column, folders", o.As)
	}
	names := union(o.By, []string{"perplexity", "n_tokens"})
	kinds, err := c.Kinds(ctx, names)
	if err != nil {
		return nil, err
	}
	req := c.request("bucket")
	req.By, req.As = o.By, o.As
	dest, err := c.openDest(ctx, o.To, req)
	if err != nil {
		return nil, err
	}
	defer dest.Close()
	g := newGroups(o.By)
	thresholds, err := c.thresholds(ctx, g, bucketPercentiles, kinds, quantile.Held)
	if err != nil {
		return nil, fmt.Errorf("percentiles: %w", err)
	}
	tally := &tally{}
	err = c.EachFile(ctx, func(ctx context.Context, f *File) error {
		rows, counts, err := c.bucketRows(ctx, f, g, names, kinds, thresholds)
		if err != nil {
			return err
		}
		tally.add(counts)
		if o.As == "column" {
			return c.copyRows(ctx, dest, f, f.Input.Rel, f.scored(), false, "bucket", func(row int64) string {
				for b, name := range Buckets {
					if rows[b].Has(row) {
						return name
					}
				}
				return ""
			})
		}
		for b, r := range rows {
			name := unscored
			if b < len(Buckets) {
				name = Buckets[b]
			} else if counts[b].Rows == 0 {
				continue
			}
			if err := c.copyRows(ctx, dest, f, name+"/"+f.Input.Rel, r, false, "", nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	r := &Bucketed{
		Run: c.Manifest.Run, By: o.By, As: o.As, To: o.To, Files: len(c.Files), MissingRows: c.MissingRows,
		FailedFiles: c.FailedFiles,
		Thresholds:  thresholdList(g, bucketPercentiles, thresholds),
	}
	for b := range tally.counts {
		n := tally.counts[b]
		if n.name = unscored; b < len(Buckets) {
			n.name = Buckets[b]
		} else if n.Rows == 0 {
			continue
		}
		n.Group = map[string]*string{"bucket": &n.name}
		n.Kept, n.KeptTokens = n.Rows, n.Tokens
		r.Buckets = append(r.Buckets, n)
	}
	return r, dest.finish(ctx, r)
}

// bucketRows gives each bucket's rows of a file, and last those in none.
func (c *Corpus) bucketRows(ctx context.Context, f *File, g *groups, names []string, kinds map[string]pq.Kind,
	thresholds [][]float64) ([]*pq.Bitmap, []Count, error) {
	rows := []*pq.Bitmap{{}, {}, {}, {}}
	counts := make([]Count, len(rows))
	r := g.grouper()
	pplAt, tokensAt := indexOf(names, "perplexity"), indexOf(names, "n_tokens")
	err := c.Scan(ctx, f, names, kinds, func(first int64, n int, v []*pq.Values) error {
		group, err := r.rows(n, v[:len(g.by)])
		if err != nil {
			return err
		}
		ppl, tokens := v[pplAt], v[tokensAt]
		if ppl.Kind != pq.Float {
			return fmt.Errorf("scores of %s: %w: perplexity is of type %s", f.Input.Path, pq.ErrCorrupt, ppl.Kind)
		}
		for i := range n {
			b := len(Buckets)
			if !ppl.Null[i] && !math.IsNaN(ppl.Floats[i]) {
				switch x := ppl.Floats[i]; {
				case x < thresholds[0][group[i]]:
					b = 0
				case x < thresholds[1][group[i]]:
					b = 1
				default:
					b = 2
				}
			}
			rows[b].Set(first + int64(i))
			counts[b].Rows++
			counts[b].Tokens += tokens.Ints[i]
		}
		return nil
	})
	return rows, counts, err
}
