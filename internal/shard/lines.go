package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"surprisal/internal/score"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/pq"
	"surprisal/internal/store"
)

// planLines cuts a file of JSON lines, which is read to its end for that. Bytes
// of lines stand for tokens.
func planLines(ctx context.Context, f store.File, in score.Input, opt PlanOptions) (score.FilePlan, error) {
	p := score.FilePlan{Input: in}
	_, err := readLineColumns(ctx, f, in, opt.Options)
	if errors.Is(err, errNoLines) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	c := cutter{jobTokens: float64(opt.JobTokens), maxRows: opt.MaxRows}
	if jsonl.Compressed(in.Rel) { // each job reads from the start
		c.jobTokens = max(c.jobTokens, compressedJobBytes/opt.BytesPerToken)
	}
	l, err := jsonl.NewScanner(ctx, f, in.Rel, in.Size, 0)
	if err != nil {
		return p, err
	}
	defer l.Close()
	for {
		if err := l.Skip(); err == io.EOF {
			break
		} else if err != nil {
			return p, err
		}
		n := len(c.cuts)
		if err := c.add(1, float64(l.Size())/opt.BytesPerToken); err != nil {
			return p, err
		}
		if len(c.cuts) > n && !jsonl.Compressed(in.Rel) {
			p.Offsets = append(p.Offsets, l.Start())
		}
	}
	p.Rows, p.Cuts, p.Tokens = c.row, c.cuts, clampTokens(c.total)
	return p, f.Unchanged()
}

// compressedJobBytes is the least text of a job of a compressed file: to reach its
// rows, all before them is decompressed.
const compressedJobBytes = 256 << 20

var errNoLines = errors.New("no rows")

// readLineColumns reads the file's first rows for its columns.
func readLineColumns(ctx context.Context, f store.File, in score.Input, o score.Options) (*Columns, error) {
	l, err := jsonl.NewScanner(ctx, f, in.Rel, in.Size, 0)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	foot, err := jsonl.Fields(l)
	if err != nil {
		return nil, err
	}
	if foot.Rows == 0 {
		return nil, errNoLines
	}
	return lineColumns(foot, o)
}

// openLines starts to read a job's lines.
func (r *Reader) openLines(ctx context.Context, f store.File) error {
	j := &r.job
	var err error
	if r.columns, err = readLineColumns(ctx, f, j.Input, j.Options); err != nil {
		return err
	}
	off, skip := j.Offset, j.First
	if off > 0 {
		var b [1]byte
		if _, err := f.ReadAt(b[:], off-1); err != nil {
			return err
		}
		if b[0] != '\n' {
			return pq.Corruptf("no line begins at byte %d", off)
		}
		skip = 0
	}
	if r.lines, err = jsonl.NewScanner(ctx, f, j.Input.Rel, j.Input.Size, off); err != nil {
		return err
	}
	r.done = r.lines.Close
	return r.skipLines(skip)
}

func (r *Reader) skipLines(n int64) error {
	for ; n > 0; n-- {
		if err := r.lines.Skip(); err == io.EOF {
			return pq.Corruptf("the file ends before its row")
		} else if err != nil {
			return err
		}
	}
	return nil
}

// lineRow reads the next line into row. What is wrong with it is the row's Problem.
func (r *Reader) lineRow(row *Row) error {
	if err := r.lines.Next(); err != nil {
		return err
	}
	o, problem := r.lines.Object()
	opt := &r.job.Options
	switch {
	case problem != "":
	case opt.IDsColumn != "":
		row.IDs, row.Null, problem = o.IDs(opt.IDsColumn)
	case opt.Conditional():
		row.Context, row.NullContext, problem = o.Text(opt.ContextColumn)
		if problem == "" {
			row.Text, row.Null, problem = o.Text(opt.TargetColumn)
		}
	default:
		row.Text, row.Null, problem = o.Text(opt.TextColumn)
	}
	row.Problem = problem
	for i, l := range r.columns.leaves {
		v, n := o.Value(l, i)
		row.Kept.values = append(row.Kept.values, v)
		row.Kept.bytes += n
	}
	return nil
}

// ReadRow reads one row of a job.
func ReadRow(ctx context.Context, job score.Job, row int64) (Row, error) {
	skip := int64(0)
	if jsonl.Is(job.Input.Rel) { // lines are reached from the job's first
		skip = row - job.First
		job.Last = row
	} else {
		job.First, job.Last = row, row
	}
	r, err := OpenRange(ctx, job)
	if err != nil {
		return Row{}, err
	}
	if skip > 0 {
		if err := r.skipLines(skip); err != nil {
			return Row{}, errors.Join(fmt.Errorf("read row %d of %s: %w", row, job.Input.Path, err), r.Close())
		}
		r.next = row
	}
	got, err := r.Next()
	return got, errors.Join(err, r.Close())
}

// lineColumns checks that the fields asked for are there, and gives the kept ones.
func lineColumns(foot *pq.Footer, o score.Options) (*Columns, error) {
	for _, name := range []string{o.TextColumn, o.ContextColumn, o.TargetColumn, o.IDsColumn} {
		first, _, nested := strings.Cut(name, ".")
		if name != "" && !foot.Has(name) && !(nested && foot.Has(first)) {
			return nil, foot.ColumnErr("no field %q in the first %d rows", name, jsonl.SampleRows)
		}
	}
	c, err := newColumns(foot, o)
	if err != nil {
		return nil, err
	}
	_, err = outputSchema(c, o)
	return c, err
}
