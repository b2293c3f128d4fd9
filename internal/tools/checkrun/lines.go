package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
)

// lines is an input of JSON lines, read line by line.
type lines struct {
	path  string
	f     *os.File
	r     *bufio.Reader
	next  int64 // row that r is at
	start bool  // nothing has been read yet
}

// maxLine is what docs/inputs.md says of long lines: they are rows with an error.
const maxLine = 64 << 20

func isLines(path string) bool {
	for _, s := range []string{".gz", ".zst"} {
		path = strings.TrimSuffix(path, s)
	}
	return strings.HasSuffix(path, ".jsonl") || strings.HasSuffix(path, ".ndjson")
}

// rewind opens the file again from its beginning.
func (l *lines) rewind() error {
	err := l.Close()
	if err != nil {
		return err
	}
	if l.f, err = os.Open(l.path); err != nil {
		return err
	}
	l.next, l.start = 0, true
	var r io.Reader = l.f
	switch {
	case strings.HasSuffix(l.path, ".gz"):
		r, err = gzip.NewReader(r)
	case strings.HasSuffix(l.path, ".zst"):
		r, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	}
	l.r = bufio.NewReaderSize(r, 1<<20)
	return err
}

func (l *lines) Close() error {
	f := l.f
	if l.f = nil; f == nil {
		return nil
	}
	return f.Close()
}

// line gives the next line that is not blank; io.EOF past the last.
func (l *lines) line() ([]byte, error) {
	for {
		b, err := l.r.ReadBytes('\n')
		if err != nil && (!errors.Is(err, io.EOF) || len(b) == 0) {
			return nil, err
		}
		if l.start {
			b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
		}
		l.start = false
		if len(bytes.TrimSpace(b)) > 0 {
			l.next++
			return b, nil
		}
	}
}

func (l *lines) count() (int64, error) {
	if err := l.rewind(); err != nil {
		return 0, err
	}
	for {
		if _, err := l.line(); errors.Is(err, io.EOF) {
			return l.next, nil
		} else if err != nil {
			return 0, err
		}
	}
}

// rows gives the objects of rows first..last; nil for a line that is none.
func (l *lines) rows(first, last int64, do func(row int64, o map[string]json.RawMessage) error) error {
	if l.f == nil || l.next > first {
		if err := l.rewind(); err != nil {
			return err
		}
	}
	for l.next <= last {
		row := l.next
		b, err := l.line()
		if err != nil {
			return fmt.Errorf("row %d: %w", row, err)
		}
		if row < first {
			continue
		}
		var o map[string]json.RawMessage
		if len(b) > maxLine || !utf8.Valid(b) || json.Unmarshal(b, &o) != nil {
			o = nil
		}
		if err := do(row, o); err != nil {
			return err
		}
	}
	return nil
}

// compareLines is compareKept for an input of lines: each kept column is a field.
func (c *checker) compareLines(j job, t *table, in *lines) {
	var kept []int // leaves
	for i, name := range t.columns {
		top, _, _ := strings.Cut(name, ".list.")
		if !slices.Contains(c.m.own(), top) && (!c.m.Options.PerToken || top != "token_ids" && top != "token_nll") {
			kept = append(kept, i)
		}
	}
	if len(kept) == 0 {
		return
	}
	var have [][]parquet.Value
	err := t.rows(0, t.NumRows()-1, func(_ int64, v []parquet.Value) error {
		row := make([]parquet.Value, len(kept))
		for i, leaf := range kept {
			if vals := column(v, leaf); len(vals) == 1 {
				row[i] = vals[0].Clone()
			}
		}
		have = append(have, row)
		return nil
	})
	if err == nil {
		err = in.rows(j.first, j.last, func(row int64, o map[string]json.RawMessage) error {
			if row-j.first >= int64(len(have)) {
				return fmt.Errorf("no scored row for row %d", row)
			}
			c.kept.Checked++
			for i, leaf := range kept {
				v, name := have[row-j.first][i], t.columns[leaf]
				if want := fieldText(o[name], t.kind(leaf)); valueText(v) != want {
					return fmt.Errorf("row %d: column %s is %.80q, the input has %.80q", row, name, valueText(v), want)
				}
			}
			return nil
		})
	}
	if err != nil {
		c.kept.breaks("%s: %v", j.output, err)
	}
}

func (t *table) kind(leaf int) parquet.Kind {
	path := t.Schema().Columns()[leaf]
	l, ok := t.Schema().Lookup(path...)
	if !ok {
		return -1
	}
	return l.Node.Type().Kind()
}

const noValue = "\x00null"

// fieldText is what a kept field comes to in a column of that kind.
func fieldText(v json.RawMessage, kind parquet.Kind) string {
	if v == nil || string(v) == "null" {
		return noValue
	}
	switch kind {
	case parquet.ByteArray:
		var s string
		if json.Unmarshal(v, &s) == nil {
			return s
		}
		return string(v)
	case parquet.Boolean:
		if string(v) == "true" || string(v) == "false" {
			return string(v)
		}
	case parquet.Int64:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return fmt.Sprint(n)
		}
	case parquet.Double:
		if x, err := strconv.ParseFloat(string(v), 64); err == nil && v[0] != '"' {
			return fmt.Sprint(x)
		}
	}
	return noValue
}

func valueText(v parquet.Value) string {
	switch {
	case v.IsNull():
		return noValue
	case v.Kind() == parquet.ByteArray:
		return string(v.ByteArray())
	case v.Kind() == parquet.Boolean:
		return fmt.Sprint(v.Boolean())
	case v.Kind() == parquet.Int64:
		return fmt.Sprint(v.Int64())
	case v.Kind() == parquet.Double:
		return fmt.Sprint(v.Double())
	}
	return v.String()
}
