package pq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/testkit/pythontest"
	"surprisal/internal/testkit/shardtest"
)

// localFile is a file that nobody changes.
type localFile struct{ *os.File }

func (localFile) Unchanged() error { return nil }

func tryOpenTable(path string) (*Table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return OpenTable(path, localFile{f}, st.Size())
}

func openTable(t testing.TB, path string) *Table {
	t.Helper()
	in, err := tryOpenTable(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

// copyTo makes a file of a copy.
func copyTo(ctx context.Context, path string, c Copy) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return c.WriteTo(ctx, f, func() (*os.File, error) { return os.CreateTemp(filepath.Dir(path), "scratch") })
}

// TestCopyRows copies rows of every kind of file and has pyarrow and DuckDB
// compare them with the input.
func TestCopyRows(t *testing.T) {
	python := pythontest.With(t, "pyarrow", "duckdb")
	for _, path := range shardtest.Fixtures(t, "*") {
		name := strings.TrimSuffix(filepath.Base(path), ".parquet")
		if name == "empty" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			in, dir := openTable(t, path), t.TempDir()
			args := []string{filepath.Join(shardtest.Testdata(), "copyback.py"), path}
			for what, keep := range shardtest.Selections {
				rows, list := &Bitmap{}, filepath.Join(dir, "."+what)
				var lines strings.Builder
				for r := range in.Rows() {
					if keep(r) {
						rows.Set(r)
						fmt.Fprintln(&lines, r)
					}
				}
				if err := os.WriteFile(list, []byte(lines.String()), 0o600); err != nil {
					t.Fatal(err)
				}
				c := Copy{In: in, Rows: rows, Slots: make(chan struct{}, 2)}
				if what == "all" {
					c.Rows = nil
				}
				if err := copyTo(ctx, filepath.Join(dir, what+".parquet"), c); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				args = append(args, filepath.Join(dir, what+".parquet"), list)
			}
			if b, err := exec.Command(python, args...).CombinedOutput(); err != nil {
				t.Errorf("%s", b)
			}
		})
	}
}

// TestCopyIsDeterministic: the bytes don't depend on how much ran at once.
func TestCopyIsDeterministic(t *testing.T) {
	ctx := context.Background()
	in, path := openTable(t, shardtest.Fixtures(t, "tiny-groups")[0]), filepath.Join(t.TempDir(), "x.parquet")
	rows := &Bitmap{}
	for r := range in.Rows() {
		if shardtest.Selections["mixed"](r) {
			rows.Set(r)
		}
	}
	var first []byte
	for _, slots := range []int{1, 2, 7} {
		if err := copyTo(ctx, path, Copy{In: in, Rows: rows, Slots: make(chan struct{}, slots)}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		}
		if !bytes.Equal(first, b) {
			t.Errorf("%d slots give other bytes", slots)
		}
	}
}

// FuzzCopy: no bytes make a copy panic, and what it writes can be read.
func FuzzCopy(f *testing.F) {
	for _, name := range []string{"tiny-groups", "nulls", "ids-v2", "enc-dict-snappy-v1", "enc-plain-zstd-v2"} {
		b, err := os.ReadFile(filepath.Join(shardtest.Testdata(), name+".parquet"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint64(0x5555555555555555))
		f.Add(b, ^uint64(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, pattern uint64) {
		foot, err := ReadFooter(bytes.NewReader(b), int64(len(b)))
		if err != nil || foot.Rows > 1<<16 {
			return
		}
		path := filepath.Join(t.TempDir(), "x.parquet")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		in, err := tryOpenTable(path)
		if err != nil {
			return
		}
		defer in.Close()
		rows := &Bitmap{}
		for r := range in.Rows() {
			if pattern>>(r&63)&1 == 1 {
				rows.Set(r)
			}
		}
		copied := filepath.Join(t.TempDir(), "y.parquet")
		if copyTo(ctx, copied, Copy{In: in, Rows: rows, Slots: make(chan struct{}, 2)}) != nil {
			return
		}
		out, err := tryOpenTable(copied)
		if err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
		defer out.Close()
		if out.Rows() != rows.Count(0, in.Rows()) {
			t.Fatalf("%d rows of %d", out.Rows(), rows.Count(0, in.Rows()))
		}
	})
}

// TestScalar reads columns of every kind in batches.
func TestScalar(t *testing.T) {
	ctx := context.Background()
	in := openTable(t, shardtest.Fixtures(t, "kinds")[0])
	for _, from := range []int64{0, 1, 99, 249} {
		s, err := in.Scalar(ctx, "text", from)
		if err != nil {
			t.Fatal(err)
		}
		var v Values
		row := from
		for s.Read(&v, 7) == nil {
			for i := range v.Len() {
				if v.Null[i] != shardtest.Null(row) || (!v.Null[i] && string(v.Texts[i]) != shardtest.Text(row)) {
					t.Fatalf("row %d is %q", row, v.Texts[i])
				}
				row++
			}
		}
		if row != shardtest.Rows {
			t.Errorf("%d rows", row)
		}
	}
	if _, err := in.Scalar(ctx, "nope", 0); !errors.Is(err, ErrColumn) {
		t.Errorf("a column that isn't there: %v", err)
	}
}

func TestBitmap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var b Bitmap
		n := int64(r.IntN(300))
		want := make([]bool, 320)
		density := r.IntN(100)
		for i := range n {
			if r.IntN(100) < density {
				b.Set(i)
				want[i] = true
			}
		}
		from := int64(r.IntN(300))
		to := from + int64(r.IntN(int(320-from)))
		count, start, end := int64(0), to, to
		for i := from; i < to; i++ {
			if want[i] {
				count++
			}
		}
		for i := from; i < to && start == to; i++ {
			if want[i] {
				for start, end = i, i; end < to && want[end]; end++ {
				}
			}
		}
		if got := b.Count(from, to); got != count {
			t.Fatalf("count %d to %d: %d, want %d", from, to, got, count)
		}
		if s, e := b.Run(from, to); s != start || (s != to && e != end) {
			t.Fatalf("run %d to %d: %d %d, want %d %d", from, to, s, e, start, end)
		}
	}
}

// TestBitmapRuns: the runs are those that looking at each row finds.
func TestBitmapRuns(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, share := range []float64{0, .01, .5, .99, 1} {
		const rows = 700
		b := &Bitmap{}
		for i := range int64(rows) {
			if r.Float64() < share {
				b.Set(i)
			}
		}
		for from := int64(0); from < rows+70; from += 13 {
			for to := from; to < rows+140; to += 17 {
				start := from
				for start < to && !b.Has(start) {
					start++
				}
				end := start
				for end < to && b.Has(end) {
					end++
				}
				if a, z := b.Run(from, to); a != start || z != end {
					t.Fatalf("share %v: run(%d, %d) is [%d, %d), want [%d, %d)", share, from, to, a, z, start, end)
				}
			}
		}
	}
}
