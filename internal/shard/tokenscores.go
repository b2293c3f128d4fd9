package shard

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/parquet-go/parquet-go"
)

// TokenScores reads token_ids and token_nll of one row of a score file, nil
// where the file has none or the row has an error.
func (t *Table) TokenScores(ctx context.Context, row int64) (ids []int32, nll []float32, err error) {
	if !t.Has("token_ids") || !t.Has("token_nll") {
		return nil, nil, nil
	}
	err = t.list(ctx, "token_ids", parquet.Int32, row, func(b []byte) { ids = append(ids, int32(binary.LittleEndian.Uint32(b))) })
	if err == nil {
		err = t.list(ctx, "token_nll", parquet.Float, row, func(b []byte) {
			nll = append(nll, math.Float32frombits(binary.LittleEndian.Uint32(b)))
		})
	}
	return ids, nll, err
}

func (t *Table) list(ctx context.Context, name string, kind parquet.Kind, row int64, do func([]byte)) error {
	err := recovered(func() error {
		e, err := t.foot.top(name)
		if err != nil {
			return err
		}
		el := e.listElement()
		if el == nil || el.leaf == nil || el.leaf.kind != kind || el.leaf.maxRep != 1 {
			return t.foot.columnErr("column %q is of type %s", name, e.typeName(0))
		}
		n := 0
		return newColumn(ctx, t.file, t.foot, el.leaf, row).row(func(e entry) error {
			if n++; n > maxRowIDs {
				return corruptf("the row has more than %d tokens", maxRowIDs)
			}
			if e.val != nil {
				do(e.val)
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", t.path, err)
	}
	return nil
}

// WriteTexts writes a parquet file of one column text.
func (d *Dest) WriteTexts(ctx context.Context, name string, texts []string) error {
	type row struct {
		Text string `parquet:"text"`
	}
	rows := make([]row, len(texts))
	for i, s := range texts {
		rows[i].Text = s
	}
	return d.WriteFile(ctx, name, func(w io.Writer) error {
		pw := parquet.NewGenericWriter[row](w)
		if _, err := pw.Write(rows); err != nil {
			return err
		}
		return pw.Close()
	})
}
