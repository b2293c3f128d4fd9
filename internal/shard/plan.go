package shard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/score"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/pq"
)

// tokenCountColumn may hold each document's number of tokens, by some tokenizer.
const tokenCountColumn = "token_count"

// maxCuts bounds one file's jobs, so that a slip in --job-tokens does not fill
// the memory with boundaries.
const maxCuts = 10_000_000

// A token_count column that takes more bytes or requests than this is not read
// over a network: the footer's sizes do.
const (
	maxRemoteCounts = 512 << 10
	maxRemoteGroups = 64
)

// maxPlanError bounds what a file with very many or very long column names can
// put into a manifest.
const maxPlanError = 2000

// PlanOptions say how files are cut.
type PlanOptions struct {
	// Options name the columns.
	Options score.Options
	// JobTokens is the wanted size of a job in estimated tokens. Default 1<<20.
	JobTokens int64
	// BytesPerToken turns bytes of text into tokens. Default 4.
	BytesPerToken float64
	// MaxRows bounds a job's rows. Default 1<<20.
	MaxRows int64
	// SkipTokenCount keeps Plan to footers alone. Otherwise, when the input has
	// a token_count column, that column is read (a few KB a row group) and jobs
	// are cut by it, row by row; a footer alone tells bytes, not where they lie.
	SkipTokenCount bool
}

func (o PlanOptions) withDefaults() PlanOptions {
	if o.JobTokens <= 0 {
		o.JobTokens = 1 << 20
	}
	if !(o.BytesPerToken > 0) {
		o.BytesPerToken = 4
	}
	if o.MaxRows <= 0 {
		o.MaxRows = 1 << 20
	}
	return o
}

// Plan cuts one file into jobs of about opt.JobTokens estimated tokens. Cuts
// may fall on any row; every job has a row at least, so that a huge document is
// a job of its own. A file that can't be scored gives a plan whose Error says
// why in one line; the error returned is ctx's alone.
func Plan(ctx context.Context, in score.Input, opt PlanOptions) (score.FilePlan, error) {
	if err := ctx.Err(); err != nil {
		return score.FilePlan{}, err
	}
	p, err := plan(ctx, in, opt.withDefaults())
	if ctx.Err() != nil {
		return score.FilePlan{}, ctx.Err()
	}
	if err != nil {
		return score.FilePlan{Input: in, Error: planError(in, err)}, nil
	}
	return p, nil
}

// planError is err in one line, for people.
func planError(in score.Input, err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = fmt.Errorf("can't be read: %w", pe.Err)
	}
	s := strings.TrimPrefix(err.Error(), pq.ErrCorrupt.Error()+": ")
	s = strings.TrimPrefix(s, pq.ErrColumn.Error()+": ")
	s = strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "\uFFFD")
	if r := []rune(s); len(r) > maxPlanError {
		s = string(r[:maxPlanError]) + "…"
	}
	return s
}

func plan(ctx context.Context, in score.Input, opt PlanOptions) (p score.FilePlan, err error) {
	f, err := openInput(ctx, in)
	if err != nil {
		return p, err
	}
	defer f.Close()
	err = pq.Recovered(func() error {
		if jsonl.Is(in.Rel) {
			p, err = planLines(ctx, f, in, opt)
			return err
		}
		p, err = planFile(ctx, f, in, opt)
		return err
	})
	return p, err
}

func planFile(ctx context.Context, f io.ReaderAt, in score.Input, opt PlanOptions) (score.FilePlan, error) {
	p := score.FilePlan{Input: in}
	foot, err := pq.ReadFooter(f, in.Size)
	if err != nil {
		return p, err
	}
	leaves, ids, err := checkColumns(foot, opt.Options)
	if err != nil {
		return p, err
	}
	p.Rows, p.RowGroups = foot.Rows, foot.RowGroups()
	c := cutter{jobTokens: float64(opt.JobTokens), maxRows: opt.MaxRows}
	if !opt.SkipTokenCount && opt.Options.TextColumn != "" && c.byTokenCount(ctx, f, foot) == nil {
		p.Cuts, p.Tokens = c.cuts, clampTokens(c.total)
		return p, nil
	}
	c = cutter{jobTokens: c.jobTokens, maxRows: c.maxRows}
	for i := range p.RowGroups {
		tokens := 0.0
		for _, l := range leaves {
			if ids {
				tokens += float64(foot.GroupValues(i, l))
			} else {
				tokens += float64(foot.GroupSize(i, l)) / opt.BytesPerToken
			}
		}
		if err := c.group(foot.GroupRows(i), tokens); err != nil {
			return p, err
		}
	}
	p.Cuts, p.Tokens = c.cuts, clampTokens(c.total)
	return p, nil
}

func clampTokens(t float64) int64 {
	return int64(min(max(t, 0), 1<<62))
}

// checkColumns reports whether the file has the columns that are asked for, and
// gives those that are scored.
func checkColumns(foot *pq.Footer, o score.Options) (scored []*pq.Leaf, ids bool, err error) {
	if o.IDsColumn != "" {
		c, err := findIDs(foot, o.IDsColumn)
		if err != nil {
			return nil, false, err
		}
		scored, ids = []*pq.Leaf{c.leaf}, true
	} else if scored, err = findTexts(foot, o); err != nil {
		return nil, false, err
	}
	cols, err := newColumns(foot, o)
	if err != nil {
		return nil, false, err
	}
	if _, err := outputSchema(cols, o); err != nil {
		return nil, false, err
	}
	if err := foot.Readable(slices.Concat(cols.leaves, scored)); err != nil {
		return nil, false, err
	}
	return scored, ids, nil
}

// cutter cuts rows into jobs as they come.
type cutter struct {
	jobTokens float64
	maxRows   int64

	cuts   []int64
	row    int64   // the next row
	tokens float64 // of the job that is open
	total  float64
}

// add takes n rows of t tokens each; n > 1 only if they are to stay together.
func (c *cutter) add(n int64, t float64) error {
	open := len(c.cuts) > 0
	var rows int64
	if open {
		rows = c.row - c.cuts[len(c.cuts)-1]
	}
	if !open || c.tokens+t*float64(n) > c.jobTokens || rows+n > c.maxRows {
		if len(c.cuts) == maxCuts {
			return fmt.Errorf("more than %d jobs: raise --job-tokens", maxCuts)
		}
		c.cuts = append(c.cuts, c.row)
		c.tokens = 0
	}
	c.row += n
	c.tokens += t * float64(n)
	c.total += t * float64(n)
	return nil
}

// group takes a row group of which only the sum is known.
func (c *cutter) group(rows int64, tokens float64) error {
	if rows == 0 {
		return nil
	}
	each := tokens / float64(rows)
	for rows > 0 {
		n := int64(1)
		if len(c.cuts) > 0 { // fill the open job first
			room := c.maxRows - (c.row - c.cuts[len(c.cuts)-1])
			if each > 0 {
				room = int64(min(float64(room), (c.jobTokens-c.tokens)/each))
			}
			n = max(n, room)
		}
		n = min(n, rows)
		if err := c.add(n, each); err != nil {
			return err
		}
		rows -= n
	}
	return nil
}

var errNoTokenCount = errors.New("no usable token_count column")

// byTokenCount cuts by the token_count column. Any error only means that it
// can't be used: it is no part of what is scored.
func (c *cutter) byTokenCount(ctx context.Context, f io.ReaderAt, foot *pq.Footer) error {
	if !foot.Has(tokenCountColumn) {
		return errNoTokenCount
	}
	e, err := foot.Top(tokenCountColumn)
	if err != nil {
		return err
	}
	l := e.Leaf
	if l == nil || e.Repeated() || (l.Kind != parquet.Int32 && l.Kind != parquet.Int64) {
		return errNoTokenCount
	}
	if src, ok := f.(pq.Remote); ok && !src.Local() {
		// As cheap as for a local file only if it is small and in one piece or few.
		if foot.StoredSize(l) > maxRemoteCounts || foot.RowGroups() > maxRemoteGroups {
			return errNoTokenCount
		}
	}
	f, done := foot.ReadAhead(ctx, f, []*pq.Leaf{l}, 0, foot.Rows-1)
	defer done()
	col := pq.NewColumn(ctx, f, foot, l, 0)
	for {
		t := int64(0)
		err := col.Row(func(e pq.Entry) error {
			switch len(e.Val) {
			case 4:
				t = int64(int32(binary.LittleEndian.Uint32(e.Val)))
			case 8:
				t = int64(binary.LittleEndian.Uint64(e.Val))
			}
			return nil
		})
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if t < 0 || t > math.MaxInt32 {
			return errNoTokenCount
		}
		if err := c.add(1, float64(t)); err != nil {
			return err
		}
	}
}
