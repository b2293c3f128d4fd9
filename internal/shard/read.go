package shard

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"surprisal/internal/score"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/pq"
	"surprisal/internal/store"
)

// What one row may hold. Runs and dictionaries can stand for any number of
// values in a few bytes, so a row is bounded apart from the file's size.
const (
	maxRowIDs    = 1 << 26
	maxKeptItems = 1 << 22
	maxKeptBytes = 1 << 30
)

// Row is one input row.
type Row struct {
	// Index is the row's index in the file.
	Index int64
	// Text is the text column's bytes, or the target column's, not checked to be
	// UTF-8. Empty for ids.
	Text string
	// Context is the context column's, and NullContext tells that it is null.
	Context     string
	NullContext bool
	// IDs are the ids column's values; nil for text, not nil for an empty list.
	IDs []int32
	// Null: the text, the target or the list of ids is null.
	Null bool
	// Problem is empty, or why the row can't be used: an id is null or does not fit
	// 32 bits, or a line of JSON is bad. IDs is nil then.
	Problem string
	// Kept goes to Writer.Write unchanged.
	Kept Kept
}

// Reader reads a job's rows, one after another, and holds one page a column.
type Reader struct {
	job     score.Job
	file    *store.File
	done    func()     // ends the reading ahead
	text    *pq.Column // or the target
	context *pq.Column // of a conditional run
	ids     *pq.Column
	idsCol  *idsColumn
	kept    []*pq.Column
	lines   *jsonl.Scanner // of a file of JSON lines, which has no columns to read
	columns *Columns
	next    int64
	err     error
}

// OpenRange opens the job's rows. An error wraps ErrInputChanged, pq.ErrCorrupt or
// pq.ErrColumn when that is what is wrong. The caller must Close the reader.
func (o *Opener) OpenRange(ctx context.Context, job score.Job) (*Reader, error) {
	r, err := o.openRange(ctx, job)
	if err != nil {
		return nil, fmt.Errorf("open rows %d to %d of %s: %w", job.First, job.Last, job.Input.Path, err)
	}
	return r, nil
}

// OpenRange opens one job's rows, as an Opener does.
func OpenRange(ctx context.Context, job score.Job) (*Reader, error) {
	return new(Opener).OpenRange(ctx, job)
}

func (o *Opener) openRange(ctx context.Context, job score.Job) (*Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := openInput(ctx, job.Input)
	if err != nil {
		return nil, err
	}
	r := &Reader{job: job, file: &f, next: job.First}
	if err := pq.Recovered(func() error {
		if jsonl.Is(job.Input.Rel) {
			return r.openLines(ctx, f)
		}
		foot, err := o.footer(f, job.Input, f.Size)
		if err != nil {
			return err
		}
		return r.open(ctx, f, foot)
	}); err != nil {
		r.endAhead()
		f.Close()
		return nil, err
	}
	return r, nil
}

func (r *Reader) open(ctx context.Context, src io.ReaderAt, foot *pq.Footer) error {
	if r.job.First < 0 || r.job.First > r.job.Last || r.job.Last >= foot.Rows {
		return pq.Corruptf("the file has %d rows", foot.Rows)
	}
	var scored []*pq.Leaf
	var err error
	if r.job.Options.IDsColumn != "" {
		if r.idsCol, err = findIDs(foot, r.job.Options.IDsColumn); err != nil {
			return err
		}
		scored = []*pq.Leaf{r.idsCol.leaf}
	} else if scored, err = findTexts(foot, r.job.Options); err != nil {
		return err
	}
	if r.columns, err = newColumns(foot, r.job.Options); err != nil {
		return err
	}
	var f io.ReaderAt
	f, r.done = foot.ReadAhead(ctx, src, slices.Concat(scored, r.columns.leaves), r.job.First, r.job.Last)
	if r.idsCol != nil {
		r.ids = pq.NewColumn(ctx, f, foot, scored[0], r.job.First)
	} else {
		r.text = pq.NewColumn(ctx, f, foot, scored[0], r.job.First)
	}
	if len(scored) > 1 {
		r.context = pq.NewColumn(ctx, f, foot, scored[1], r.job.First)
	}
	for _, l := range r.columns.leaves {
		r.kept = append(r.kept, pq.NewColumn(ctx, f, foot, l, r.job.First))
	}
	return nil
}

// Columns are the kept columns, for Create.
func (r *Reader) Columns() *Columns { return r.columns }

// Next gives the next row, which stays valid, or io.EOF after the job's last.
func (r *Reader) Next() (Row, error) {
	if r.err != nil {
		return Row{}, r.err
	}
	var row Row
	err := pq.Recovered(func() (err error) {
		row, err = r.row()
		return err
	})
	if err != nil {
		if err != io.EOF {
			err = fmt.Errorf("read row %d of %s: %w", r.next, r.job.Input.Path, err)
		}
		r.err = err
		return Row{}, err
	}
	r.next++
	return row, nil
}

func (r *Reader) row() (Row, error) {
	if r.next > r.job.Last {
		// What was read is the planned file only if it was not written meanwhile.
		if r.file != nil {
			if err := r.file.Unchanged(); err != nil {
				return Row{}, err
			}
		}
		return Row{}, io.EOF
	}
	row := Row{Index: r.next}
	var err error
	if r.lines != nil {
		err = r.lineRow(&row)
	} else if r.text != nil {
		row.Text, row.Null, err = textRow(r.text)
		if r.context != nil && err == nil {
			row.Context, row.NullContext, err = textRow(r.context)
		}
	} else {
		err = r.readIDs(&row)
	}
	for i := 0; i < len(r.kept) && err == nil; i++ {
		c := r.kept[i]
		err = c.Row(func(e pq.Entry) error {
			if row.Kept.bytes += len(e.Val); row.Kept.bytes > maxKeptBytes || len(row.Kept.values) >= maxKeptItems {
				return fmt.Errorf("%w: the row's kept columns have more than %d values or %d bytes", pq.ErrColumn,
					maxKeptItems, maxKeptBytes)
			}
			row.Kept.values = append(row.Kept.values, c.Leaf.Value(e, i))
			return nil
		})
	}
	if err == io.EOF {
		err = pq.Corruptf("the file ends before its row")
	}
	return row, err
}

func textRow(c *pq.Column) (text string, null bool, err error) {
	err = c.Row(func(e pq.Entry) error {
		text, null = string(e.Val), e.Def < c.Leaf.MaxDef
		return nil
	})
	return text, null, err
}

func (r *Reader) readIDs(row *Row) error {
	l := r.idsCol.leaf
	row.IDs = []int32{}
	err := r.ids.Row(func(e pq.Entry) error {
		switch {
		case e.Def < r.idsCol.listDef:
			row.Null = true
		case e.Def == r.idsCol.listDef: // an empty list
		case e.Def < l.MaxDef:
			row.Problem = "a token id is null"
		default:
			id, ok := idValue(e.Val, r.idsCol.unsigned)
			if !ok {
				row.Problem = fmt.Sprintf("token id %s does not fit 32 bits", idText(e.Val, r.idsCol.unsigned))
			}
			if len(row.IDs) == maxRowIDs {
				return fmt.Errorf("%w: the row has more than %d ids", pq.ErrColumn, maxRowIDs)
			}
			row.IDs = append(row.IDs, id)
		}
		return nil
	})
	if row.Null || row.Problem != "" {
		row.IDs = nil
	}
	return err
}

func idValue(b []byte, unsigned bool) (int32, bool) {
	if len(b) == 4 {
		v := int32(binary.LittleEndian.Uint32(b))
		return v, !unsigned || v >= 0
	}
	v := int64(binary.LittleEndian.Uint64(b))
	if unsigned && v < 0 {
		return 0, false
	}
	return int32(v), v >= math.MinInt32 && v <= math.MaxInt32
}

func idText(b []byte, unsigned bool) string {
	switch {
	case len(b) == 4:
		return fmt.Sprint(binary.LittleEndian.Uint32(b))
	case unsigned:
		return fmt.Sprint(binary.LittleEndian.Uint64(b))
	}
	return fmt.Sprint(int64(binary.LittleEndian.Uint64(b)))
}

func (r *Reader) endAhead() {
	if r.done != nil {
		r.done()
	}
}

// Close closes the file.
func (r *Reader) Close() error {
	r.endAhead()
	if r.err == nil {
		r.err = os.ErrClosed
	}
	if r.file == nil {
		return nil
	}
	f := r.file
	r.file = nil
	return f.Close()
}
