package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// table is an open parquet file, read row by row.
type table struct {
	*parquet.File
	f       *os.File
	columns []string // leaves, by index
}

func openTable(path string) (t *table, err error) {
	defer func() { // the library panics on some broken files
		if p := recover(); p != nil {
			err = fmt.Errorf("not readable as parquet: %v", p)
		}
	}()
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	pf, err := parquet.OpenFile(f, st.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t = &table{File: pf, f: f}
	for _, c := range pf.Schema().Columns() {
		t.columns = append(t.columns, strings.Join(c, "."))
	}
	return t, nil
}

func (t *table) Close() error { return t.f.Close() }

// rows gives rows first..last one after another to do, which may not keep them.
func (t *table) rows(first, last int64, do func(row int64, values []parquet.Value) error) (err error) {
	at := first
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("row %d can't be read: %v", at, p)
		}
	}()
	begin := int64(0)
	buf := make([]parquet.Row, 64)
	for _, g := range t.RowGroups() {
		n := g.NumRows()
		if at >= begin+n || at > last {
			begin += n
			continue
		}
		if err := func() (err error) {
			rows := g.Rows()
			defer func() { err = errors.Join(err, rows.Close()) }()
			if err := rows.SeekToRow(at - begin); err != nil {
				return err
			}
			for at < begin+n && at <= last {
				k, err := rows.ReadRows(buf)
				for _, r := range buf[:k] {
					if at > last {
						break
					}
					if err := do(at, r); err != nil {
						return err
					}
					at++
				}
				if err != nil && !errors.Is(err, io.EOF) {
					return fmt.Errorf("row %d: %w", at, err)
				}
				if k == 0 {
					return fmt.Errorf("row %d: %w", at, io.ErrUnexpectedEOF)
				}
			}
			return nil
		}(); err != nil {
			return err
		}
		begin += n
	}
	if at <= last {
		return fmt.Errorf("the rows end at %d, before %d", at-1, last)
	}
	return nil
}
