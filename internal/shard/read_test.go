package shard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"surprisal/internal/shard/pq"
	"surprisal/internal/testkit/shardtest"
)

func TestReadText(t *testing.T) {
	files := shardtest.Fixtures(t, "enc-*")
	files = append(files, shardtest.Fixtures(t, "large-string")...)
	files = append(files, shardtest.Fixtures(t, "indexed")...)
	files = append(files, shardtest.Fixtures(t, "checksummed")...)
	files = append(files, shardtest.Fixtures(t, "tiny-groups")...)
	files = append(files, shardtest.Fixtures(t, "kinds*")...)
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			checkText(t, path, shardtest.Null)
		})
	}
	for _, name := range []string{"binary", "required", "int96"} {
		t.Run(name, func(t *testing.T) {
			checkText(t, shardtest.Fixtures(t, name)[0], func(int64) bool { return false })
		})
	}
	t.Run("nulls", func(t *testing.T) {
		checkText(t, shardtest.Fixtures(t, "nulls")[0], func(int64) bool { return true })
	})
}

func checkText(t *testing.T, path string, null func(int64) bool) {
	t.Helper()
	for _, r := range shardtest.Ranges {
		rows := readAll(t, shardtest.Job(t, path, t.TempDir(), shardtest.TextOptions(), r[0], r[1]))
		if int64(len(rows)) != r[1]-r[0]+1 {
			t.Fatalf("rows %v: got %d", r, len(rows))
		}
		for k, row := range rows {
			i := r[0] + int64(k)
			want := shardtest.Text(i)
			if null(i) {
				want = ""
			}
			if row.Index != i || row.Null != null(i) || row.Text != want || row.IDs != nil {
				t.Fatalf("rows %v: row %d: %+v, want %q", r, i, row, want)
			}
			if len(row.Kept.values) != 1 || string(row.Kept.values[0].ByteArray()) != fmt.Sprintf("doc-%05d", i) {
				t.Fatalf("rows %v: row %d: kept %v", r, i, row.Kept.values)
			}
		}
	}
}

func TestReadIDs(t *testing.T) {
	for _, path := range shardtest.Fixtures(t, "ids-*") {
		for _, column := range []string{"ids32", "ids64", "idsfull"} {
			t.Run(filepath.Base(path)+"/"+column, func(t *testing.T) {
				for _, r := range shardtest.Ranges {
					for k, row := range readAll(t, shardtest.Job(t, path, t.TempDir(), shardtest.IDsOptions(column),
						r[0], r[1])) {
						checkIDs(t, column, r[0]+int64(k), row)
					}
				}
			})
		}
	}
}

func checkIDs(t *testing.T, column string, i int64, row Row) {
	t.Helper()
	want, null, problem := shardtest.IDs(i), shardtest.IDs(i) == nil, ""
	switch {
	case column == "ids64" && i == 3:
		want, problem = nil, "null"
	case column == "ids64" && i == 7:
		want, problem = nil, "1099511627776"
	case column == "idsfull" && null:
		want, null = []int32{}, false
	}
	if row.Index != i || !slices.Equal(row.IDs, want) || (row.IDs == nil) != (want == nil) || row.Null != null ||
		(problem == "") != (row.Problem == "") || !strings.Contains(row.Problem, problem) {
		t.Fatalf("row %d: %+v, want %v null %v problem %q", i, row, want, null, problem)
	}
}

func TestReadErrors(t *testing.T) {
	good := shardtest.Fixtures(t, "enc-plain-zstd-v1")[0]
	t.Run("changed", func(t *testing.T) {
		path := copyOf(t, good)
		job := shardtest.Job(t, path, t.TempDir(), shardtest.TextOptions(), 0, 9)
		r, err := OpenRange(context.Background(), job)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for range 10 {
			if _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
		}
		appendTo(t, path)
		if _, err := r.Next(); !errors.Is(err, ErrInputChanged) {
			t.Fatalf("after the last row: %v", err)
		}
		if _, err := OpenRange(context.Background(), job); !errors.Is(err, ErrInputChanged) ||
			!strings.Contains(err.Error(), path) {
			t.Fatalf("opened again: %v", err)
		}
	})
	t.Run("gone", func(t *testing.T) {
		path := copyOf(t, good)
		job := shardtest.Job(t, path, t.TempDir(), shardtest.TextOptions(), 0, 9)
		os.Remove(path)
		if _, err := OpenRange(context.Background(), job); !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		r, err := OpenRange(ctx, shardtest.Job(t, good, t.TempDir(), shardtest.TextOptions(), 0, 249))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cancel()
		for {
			if _, err := r.Next(); err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				return
			}
		}
	})
	t.Run("past the end", func(t *testing.T) {
		if _, err := OpenRange(context.Background(), shardtest.Job(t, good, t.TempDir(), shardtest.TextOptions(), 249,
			250)); !errors.Is(err, pq.ErrCorrupt) {
			t.Fatal(err)
		}
	})
	t.Run("no column", func(t *testing.T) {
		o := shardtest.TextOptions()
		o.TextColumn = "body"
		_, err := OpenRange(context.Background(), shardtest.Job(t, good, t.TempDir(), o, 0, 1))
		if !errors.Is(err, pq.ErrColumn) || !strings.Contains(err.Error(), `"id" string, "text" string`) {
			t.Fatal(err)
		}
	})
	t.Run("corrupt page", func(t *testing.T) {
		path := copyOf(t, shardtest.Fixtures(t, "checksummed")[0])
		flip(t, path, 4) // somewhere in the pages
		_, err := tryReadAll(shardtest.Job(t, path, t.TempDir(), shardtest.TextOptions(), 0, 249))
		if !errors.Is(err, pq.ErrCorrupt) || !strings.Contains(err.Error(), "row group") ||
			!strings.Contains(err.Error(), "column") {
			t.Fatal(err)
		}
	})
}
