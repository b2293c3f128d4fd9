package shard

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/shard/pq"
)

// TokenScores reads token_ids and token_nll of one row of a score file, nil
// where the file has none or the row has an error.
func TokenScores(ctx context.Context, t *pq.Table, row int64) (ids []int32, nll []float32, err error) {
	if !t.Has("token_ids") || !t.Has("token_nll") {
		return nil, nil, nil
	}
	err = tokenList(ctx, t, "token_ids", parquet.Int32, row, func(b []byte) {
		ids = append(ids,
			int32(binary.LittleEndian.Uint32(b)))
	})
	if err == nil {
		err = tokenList(ctx, t, "token_nll", parquet.Float, row, func(b []byte) {
			nll = append(nll, math.Float32frombits(binary.LittleEndian.Uint32(b)))
		})
	}
	return ids, nll, err
}

func tokenList(ctx context.Context, t *pq.Table, name string, kind parquet.Kind, row int64, do func([]byte)) error {
	err := pq.Recovered(func() error {
		foot := t.Footer()
		e, err := foot.Top(name)
		if err != nil {
			return err
		}
		el := e.ListElement()
		if el == nil || el.Leaf == nil || el.Leaf.Kind != kind || el.Leaf.MaxRep != 1 {
			return foot.ColumnErr("column %q is of type %s", name, e.TypeName(0))
		}
		n := 0
		return t.Column(ctx, el.Leaf, row).Row(func(e pq.Entry) error {
			if n++; n > maxRowIDs {
				return pq.Corruptf("the row has more than %d tokens", maxRowIDs)
			}
			if e.Val != nil {
				do(e.Val)
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", t.Path(), err)
	}
	return nil
}
