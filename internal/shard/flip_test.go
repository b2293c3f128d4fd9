package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/score"
	"surprisal/internal/shard/pq"
	"surprisal/internal/testkit/shardtest"
)

// TestFlippedBits flips one bit of each byte of an input whose pages have
// checksums, with size and time as they were: what is read is the text that was
// written, or an error that says what is wrong.
func TestFlippedBits(t *testing.T) {
	type record struct {
		ID   string  `parquet:"id"`
		Text *string `parquet:"text,optional"`
	}
	for name, option := range map[string][]parquet.WriterOption{
		"plain": nil, "zstd": {parquet.Compression(&parquet.Zstd)}, "snappy": {parquet.Compression(&parquet.Snappy)},
		"version 1": {parquet.DataPageVersion(1), parquet.Compression(&parquet.Zstd)},
	} {
		t.Run(name, func(t *testing.T) {
			var file bytes.Buffer
			w := parquet.NewGenericWriter[record](&file, option...)
			for i := range 40 {
				r := record{ID: fmt.Sprintf("<id:%d>", i)}
				if i%7 != 3 {
					text := fmt.Sprintf("text %d: %x", i, i*i*7919)
					r.Text = &text
				}
				if _, err := w.Write([]record{r}); err != nil {
					t.Fatal(err)
				}
				if i%10 == 9 {
					if err := w.Flush(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			whole, err := textsOf(file.Bytes())
			if err != nil || len(whole) != 40 {
				t.Fatalf("%d rows: %v", len(whole), err)
			}
			errs, same, silent := 0, 0, 0
			for i := range file.Len() {
				for _, bit := range []int{i % 8, (i + 5) % 8} {
					b := slices.Clone(file.Bytes())
					b[i] ^= 1 << bit
					got, err := textsOf(b)
					switch {
					case err != nil:
						errs++
					case slices.Equal(got, whole):
						same++
					default:
						if silent++; silent < 20 {
							for k := range got {
								if got[k] != whole[k] {
									t.Errorf("bit %d of byte %d of %d: row %d is silently %q, was %q", bit, i, len(b),
										k, got[k], whole[k])
									break
								}
							}
						}
					}
				}
			}
			t.Logf("%d flips: %d say an error, %d change nothing of the rows, %d are silent", 2*file.Len(), errs, same,
				silent)
		})
	}
}

// textsOf reads all rows of a file as a worker does: text and what is kept.
func textsOf(b []byte) (texts []string, err error) {
	o := shardtest.TextOptions()
	o.Keep = []string{"id"}
	r := &Reader{job: score.Job{First: 0, Last: 39, Options: o}}
	foot, err := pq.ReadFooter(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	if err := r.open(context.Background(), bytes.NewReader(b), foot); err != nil {
		return nil, err
	}
	for {
		row, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return texts, nil
		case err != nil:
			return nil, err
		case row.Null:
			texts = append(texts, fmt.Sprint("null ", row.Kept.values))
		default:
			texts = append(texts, row.Text+fmt.Sprint(row.Kept.values))
		}
	}
}
