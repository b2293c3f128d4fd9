package shard

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"unsafe"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"

	"surprisal/internal/score"
)

// What one row may hold. Runs and dictionaries can stand for any number of
// values in a few bytes, so a row is bounded apart from the file's size.
const (
	maxRowIDs    = 1 << 26
	maxKeptItems = 1 << 22
	maxKeptBytes = 1 << 30
)

// Kept are one row's values of the kept columns.
type Kept struct {
	values []parquet.Value // leaf by leaf, with levels
	bytes  int             // that the values point to
}

// Size is about how much memory the values take, for who holds many rows.
func (k Kept) Size() int { return len(k.values)*int(unsafe.Sizeof(parquet.Value{})) + k.bytes }

// Columns are the kept columns' types, as the input has them.
type Columns struct {
	elements []*element
	leaves   []*leaf
	// arrow is the input's ARROW:schema, empty when it has none, and names are
	// all of the input's top-level columns: Arrow's schema is in their order.
	arrow string
	names []string
}

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
	file    *source
	done    func()  // ends the reading ahead
	text    *column // or the target
	context *column // of a conditional run
	ids     *column
	idsCol  *idsColumn
	kept    []*column
	lines   *lineScanner // of a file of JSON lines, which has no columns to read
	columns *Columns
	next    int64
	err     error
}

// OpenRange opens the job's rows. An error wraps ErrInputChanged, ErrCorrupt or
// ErrColumn when that is what is wrong. The caller must Close the reader.
func OpenRange(ctx context.Context, job score.Job) (*Reader, error) {
	r, err := openRange(ctx, job)
	if err != nil {
		return nil, fmt.Errorf("open rows %d to %d of %s: %w", job.First, job.Last, job.Input.Path, err)
	}
	return r, nil
}

func openRange(ctx context.Context, job score.Job) (*Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := openInput(ctx, job.Input)
	if err != nil {
		return nil, err
	}
	r := &Reader{job: job, file: &f, next: job.First}
	if err := recovered(func() error {
		if isLines(job.Input.Rel) {
			return r.openLines(ctx, f)
		}
		return r.open(ctx, f, f.Size)
	}); err != nil {
		r.endAhead()
		f.Close()
		return nil, err
	}
	return r, nil
}

func (r *Reader) open(ctx context.Context, src source, size int64) error {
	foot, err := src.footer(r.job.Input, size)
	if err != nil {
		return err
	}
	if r.job.First < 0 || r.job.First > r.job.Last || r.job.Last >= foot.rows {
		return corruptf("the file has %d rows", foot.rows)
	}
	var scored []*leaf
	if r.job.Options.IDsColumn != "" {
		if r.idsCol, err = foot.idsLeaf(r.job.Options.IDsColumn); err != nil {
			return err
		}
		scored = []*leaf{r.idsCol.leaf}
	} else if scored, err = foot.textLeaves(r.job.Options); err != nil {
		return err
	}
	if r.columns, err = newColumns(foot, r.job.Options); err != nil {
		return err
	}
	var f io.ReaderAt
	f, r.done = src.chunks(ctx, foot, slices.Concat(scored, r.columns.leaves), r.job.First, r.job.Last)
	if r.idsCol != nil {
		r.ids = newColumn(ctx, f, foot, scored[0], r.job.First)
	} else {
		r.text = newColumn(ctx, f, foot, scored[0], r.job.First)
	}
	if len(scored) > 1 {
		r.context = newColumn(ctx, f, foot, scored[1], r.job.First)
	}
	for _, l := range r.columns.leaves {
		r.kept = append(r.kept, newColumn(ctx, f, foot, l, r.job.First))
	}
	return nil
}

func newColumns(foot *footer, o score.Options) (*Columns, error) {
	c := &Columns{}
	var err error
	if c.elements, err = foot.keptElements(o.Keep, o.Columns()); err != nil {
		return nil, err
	}
	for _, e := range c.elements {
		c.leaves = e.appendLeaves(c.leaves)
	}
	c.arrow, _ = foot.lookup(arrowSchemaKey)
	for _, e := range foot.schema.children {
		c.names = append(c.names, e.se.Name)
	}
	return c, nil
}

// Columns are the kept columns, for Create.
func (r *Reader) Columns() *Columns { return r.columns }

// Next gives the next row, which stays valid, or io.EOF after the job's last.
func (r *Reader) Next() (Row, error) {
	if r.err != nil {
		return Row{}, r.err
	}
	var row Row
	err := recovered(func() (err error) {
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
		row.Text, row.Null, err = r.text.textRow()
		if r.context != nil && err == nil {
			row.Context, row.NullContext, err = r.context.textRow()
		}
	} else {
		err = r.readIDs(&row)
	}
	for i := 0; i < len(r.kept) && err == nil; i++ {
		c := r.kept[i]
		err = c.row(func(e entry) error {
			if row.Kept.bytes += len(e.val); row.Kept.bytes > maxKeptBytes || len(row.Kept.values) >= maxKeptItems {
				return fmt.Errorf("%w: the row's kept columns have more than %d values or %d bytes", ErrColumn, maxKeptItems, maxKeptBytes)
			}
			row.Kept.values = append(row.Kept.values, toValue(c.leaf, e, i))
			return nil
		})
	}
	if err == io.EOF {
		err = corruptf("the file ends before its row")
	}
	return row, err
}

func (c *column) textRow() (text string, null bool, err error) {
	err = c.row(func(e entry) error {
		text, null = string(e.val), e.def < c.leaf.maxDef
		return nil
	})
	return text, null, err
}

func (r *Reader) readIDs(row *Row) error {
	l := r.idsCol.leaf
	row.IDs = []int32{}
	err := r.ids.row(func(e entry) error {
		switch {
		case e.def < r.idsCol.listDef:
			row.Null = true
		case e.def == r.idsCol.listDef: // an empty list
		case e.def < l.maxDef:
			row.Problem = "a token id is null"
		default:
			id, ok := idValue(e.val, r.idsCol.unsigned)
			if !ok {
				row.Problem = fmt.Sprintf("token id %s does not fit 32 bits", idText(e.val, r.idsCol.unsigned))
			}
			if len(row.IDs) == maxRowIDs {
				return fmt.Errorf("%w: the row has more than %d ids", ErrColumn, maxRowIDs)
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

// toValue makes the value that the parquet writer takes for an entry of the
// output's column i. Bytes are copied: they outlive their page.
func toValue(l *leaf, e entry, i int) parquet.Value {
	var v parquet.Value
	if e.def == l.maxDef {
		switch b := e.val; l.kind {
		case parquet.Boolean:
			v = parquet.BooleanValue(b[0] != 0)
		case parquet.Int32:
			v = parquet.Int32Value(int32(binary.LittleEndian.Uint32(b)))
		case parquet.Int64:
			v = parquet.Int64Value(int64(binary.LittleEndian.Uint64(b)))
		case parquet.Int96:
			v = parquet.Int96Value(deprecated.Int96{
				binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]),
			})
		case parquet.Float:
			v = parquet.FloatValue(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		case parquet.Double:
			v = parquet.DoubleValue(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		case parquet.ByteArray:
			v = parquet.ByteArrayValue(bytes.Clone(b))
		default:
			v = parquet.FixedLenByteArrayValue(bytes.Clone(b))
		}
	}
	return v.Level(int(e.rep), int(e.def), i)
}

func (r *Reader) endAhead() {
	if r.done != nil {
		r.done()
	}
}

// Close gives the file back.
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
