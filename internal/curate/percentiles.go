package curate

import (
	"context"
	"math"
	"slices"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/curate/where"
	"surprisal/internal/quantile"
	"surprisal/internal/shard/pq"
)

// thresholds computes percentiles of columns for each group: [percentile][group],
// NaN where the group has no value.
func (c *Corpus) thresholds(
	ctx context.Context, g *groups, want []where.Percentile, kinds map[string]pq.Kind, held int,
) ([][]float64, error) {
	if len(want) == 0 {
		return nil, nil
	}
	var columns []string
	for _, w := range want {
		columns = union(columns, []string{w.Column})
	}
	indexed := make([]quantile.Percentile, len(want))
	for i, w := range want {
		indexed[i] = quantile.Percentile{Column: slices.Index(columns, w.Column), P: w.P}
	}
	return quantile.Find(indexed, held, g.len, func(p *quantile.Pass) error {
		return c.pass(ctx, p, g, columns,
			kinds)
	})
}

// pass adds every value of the columns to p.
func (c *Corpus) pass(
	ctx context.Context, p *quantile.Pass, g *groups, columns []string, kinds map[string]pq.Kind,
) error {
	names := union(g.by, columns)
	return c.EachFile(ctx, func(ctx context.Context, f *File) error {
		r, rows := g.grouper(), 0
		got := make([]quantile.Values, len(columns))
		err := c.Scan(ctx, f, names, kinds, func(_ int64, n int, v []*pq.Values) error {
			group, err := r.rows(n, v[:len(g.by)])
			if err != nil {
				return err
			}
			for k, name := range columns {
				v, to := v[slices.Index(names, name)], &got[k]
				for i := range n {
					if v.Null[i] {
						continue
					}
					x := 0.0
					if v.Kind == pq.Float {
						x = v.Floats[i]
					} else {
						x = float64(v.Ints[i])
					}
					if !math.IsNaN(x) {
						to.Add(group[i], x)
					}
				}
			}
			if rows += n; rows >= quantile.Batch {
				rows = 0
				p.Add(got)
			}
			return nil
		})
		p.Add(got)
		return err
	})
}

// EachFile calls do for each file, as many at once as there are cores.
func (c *Corpus) EachFile(ctx context.Context, do func(context.Context, *File) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cores())
	for i := range c.Files {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(ctx, &c.Files[i]) })
	}
	return g.Wait()
}

func percentiles(column string, p []float64) []where.Percentile {
	w := make([]where.Percentile, len(p))
	for i := range p {
		w[i] = where.Percentile{Column: column, P: p[i]}
	}
	return w
}
