package shard

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/score"
	"surprisal/internal/shard/pq"
	"surprisal/internal/store"
)

// scoreColumn is a column that ReadScores reads and how.
type scoreColumn struct {
	name string
	kind parquet.Kind
	set  func(*score.Score, []byte)
}

// contextColumn is there in conditional runs.
var contextColumn = scoreColumn{"n_context_tokens", parquet.Int64, func(s *score.Score,
	b []byte) {
	s.ContextTokens = i64(b)
}}

// scoreColumns are there in every run.
var scoreColumns = []scoreColumn{
	{"row", parquet.Int64, func(s *score.Score, b []byte) { s.Row = i64(b) }},
	{"n_tokens", parquet.Int64, func(s *score.Score, b []byte) { s.Tokens = i64(b) }},
	{"n_bytes", parquet.Int64, func(s *score.Score, b []byte) { s.Bytes = i64(b) }},
	{"sum_nll", parquet.Double, func(s *score.Score, b []byte) { s.SumNLL = math.Float64frombits(uint64(i64(b))) }},
	{"n_top1", parquet.Int64, func(s *score.Score, b []byte) { s.Top1 = i64(b) }},
	{"truncated", parquet.Boolean, func(s *score.Score, b []byte) { s.Truncated = b[0] != 0 }},
	{"error", parquet.ByteArray, func(s *score.Score, b []byte) { s.Error = string(b) }},
}

// conditional reports whether a score file is of a conditional run. A kept column
// may have a name of its columns; kept ones come before.
func conditional(f *pq.Footer) bool {
	columns := f.Columns()
	for i, c := range columns {
		if c.Name() == "error" {
			return i+1 < len(columns) && columns[i+1].Name() == contextColumn.name
		}
	}
	return false
}

func i64(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) }

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// ReadScores streams a score file's scores in order, without token_ids and
// token_nll. Rows that are not the file's own range in order are ErrCorrupt.
func ReadScores(ctx context.Context, path string, do func(score.Score) error) error {
	if err := readScores(ctx, path, do); err != nil {
		return fmt.Errorf("read scores of %s: %w", path, err)
	}
	return nil
}

func readScores(ctx context.Context, path string, do func(score.Score) error) error {
	f, err := store.OpenFile(ctx, path)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := InspectFile(f, f.Size)
	if err != nil {
		return err
	}
	foot, err := pq.ReadFooter(f, f.Size)
	if err != nil {
		return err
	}
	read := scoreColumns
	if conditional(foot) {
		read = append(slices.Clone(read), contextColumn)
	}
	var leaves []*pq.Leaf
	for _, sc := range read {
		e, err := foot.Top(sc.name)
		if err != nil {
			return err
		}
		if e.Leaf == nil || e.Leaf.Kind != sc.kind || e.Repeated() {
			return foot.ColumnErr("column %q is of type %s", sc.name, e.TypeName(0))
		}
		leaves = append(leaves, e.Leaf)
	}
	chunks, done := foot.ReadAhead(ctx, f, leaves, 0, c.Last-c.First)
	defer done()
	cols := make([]*pq.Column, len(leaves))
	for i, l := range leaves {
		cols[i] = pq.NewColumn(ctx, chunks, foot, l, 0)
	}
	for row := c.First; row <= c.Last; row++ {
		s := score.Score{Bytes: -1}
		for i, col := range cols {
			err := col.Row(func(e pq.Entry) error {
				if e.Def == col.Leaf.MaxDef {
					read[i].set(&s, e.Val)
				}
				return nil
			})
			if err == io.EOF {
				err = pq.Corruptf("the file ends before row %d", row)
			}
			if err != nil {
				return err
			}
		}
		if s.Row != row {
			return pq.Corruptf("found row %d, expected row %d", s.Row, row)
		}
		if err := do(s); err != nil {
			return err
		}
	}
	return nil
}

// ownColumns are the names of a score file's own columns, in its order.
func ownColumns(f *pq.Footer) []string {
	var own []string
	conditional := conditional(f)
	for _, e := range f.Columns() {
		name := e.Name()
		if slices.Contains(score.OutputColumns, name) || conditional && slices.Contains(score.ConditionalColumns,
			name) {
			own = append(own, name)
		}
	}
	return own
}
