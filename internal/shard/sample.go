package shard

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"surprisal/internal/score"
	"surprisal/internal/shard/pq"
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
	var columns []*pq.Node
	text := parquet.String().Type()
	switch {
	case o.IDsColumn != "":
		columns = append(columns, pq.ListNode(o.IDsColumn, parquet.Int32Type))
	case o.Conditional():
		columns = append(columns, pq.LeafNode(o.TargetColumn, text, format.Optional),
			pq.LeafNode(o.ContextColumn, text, format.Optional))
	default:
		columns = append(columns, pq.LeafNode(o.TextColumn, text, format.Optional))
	}
	root, err := pq.NewSchema(nil, columns...)
	if err != nil {
		return err
	}
	return pq.Recovered(func() error {
		// nolint:staticcheck // as in Create
		w := parquet.NewWriter(f, parquet.NewSchema("schema", root), parquet.Compression(&parquet.Zstd))
		for _, r := range rows {
			var row parquet.Row
			switch {
			case r.Problem != "":
				return fmt.Errorf("row %d: %s", r.Index, r.Problem)
			case o.IDsColumn != "":
				row = appendList(row, 0, r.IDs, r.Null, parquet.Int32Value)
			default:
				row = appendText(row, 0, r.Text, r.Null)
				if o.Conditional() {
					row = appendText(row, 1, r.Context, r.NullContext)
				}
			}
			if _, err := w.WriteRows([]parquet.Row{row}); err != nil {
				return err
			}
		}
		return w.Close()
	})
}

func appendText(row parquet.Row, col int, text string, null bool) parquet.Row {
	if null {
		return append(row, parquet.NullValue().Level(0, 0, col))
	}
	return append(row, parquet.ByteArrayValue([]byte(text)).Level(0, 1, col))
}

// WriteTexts writes a parquet file of one column text.
func WriteTexts(w io.Writer, texts []string) error {
	type row struct {
		Text string `parquet:"text"`
	}
	rows := make([]row, len(texts))
	for i, s := range texts {
		rows[i].Text = s
	}
	pw := parquet.NewGenericWriter[row](w)
	if _, err := pw.Write(rows); err != nil {
		return err
	}
	return pw.Close()
}
