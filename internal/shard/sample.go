package shard

import (
	"errors"
	"fmt"
	"os"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/score"
)

// WriteRows writes an input file of the rows' texts or ids, whichever column o
// names, so that they can be scored apart from their file. Rows with a Problem
// can't be written.
func WriteRows(path string, o score.Options, rows []Row) error {
	if err := writeRows(path, o, rows); err != nil {
		return fmt.Errorf("write rows to %s: %w", path, err)
	}
	return nil
}

func writeRows(path string, o score.Options, rows []Row) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	node := parquet.Group{o.TextColumn: parquet.Optional(parquet.String())}
	if o.IDsColumn != "" {
		node = parquet.Group{o.IDsColumn: parquet.Optional(parquet.List(parquet.Optional(parquet.Int(32))))}
	}
	return recovered(func() error {
		w := parquet.NewWriter(f, parquet.NewSchema("schema", node), parquet.Compression(&parquet.Zstd)) //nolint:staticcheck // as in Create
		for _, r := range rows {
			var row parquet.Row
			switch {
			case r.Problem != "":
				return fmt.Errorf("row %d: %s", r.Index, r.Problem)
			case o.IDsColumn != "":
				row = appendList(row, 0, r.IDs, r.Null, parquet.Int32Value)
			case r.Null:
				row = append(row, parquet.NullValue().Level(0, 0, 0))
			default:
				row = append(row, parquet.ByteArrayValue([]byte(r.Text)).Level(0, 1, 0))
			}
			if _, err := w.WriteRows([]parquet.Row{row}); err != nil {
				return err
			}
		}
		return w.Close()
	})
}
