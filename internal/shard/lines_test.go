package shard

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"surprisal/internal/score"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/pq"
	"surprisal/internal/testkit/shardtest"
)

// packLines compresses as the name says.
func packLines(t testing.TB, name string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch {
	case strings.HasSuffix(name, ".gz"): // of two members
		for _, part := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
			z := gzip.NewWriter(&out)
			if _, err := z.Write(part); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
		}
	case strings.HasSuffix(name, ".zst"):
		for _, part := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
			z, err := zstd.NewWriter(&out)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := z.Write(part); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
		}
	default:
		return b
	}
	return out.Bytes()
}

func writeLines(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, packLines(t, name, []byte(text)), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func linesOptions() score.Options {
	o := shardtest.TextOptions()
	o.Keep = []string{"*"}
	return o
}

// linesJobs plans a file and gives its jobs.
func linesJobs(t testing.TB, path string, o score.Options, jobTokens int64) (score.FilePlan, []score.Job) {
	t.Helper()
	p, err := Plan(context.Background(), shardtest.Input(t, path), PlanOptions{Options: o, JobTokens: jobTokens})
	if err != nil || p.Error != "" {
		t.Fatalf("plan: %v, %s", err, p.Error)
	}
	m := shardtest.Manifest(t.TempDir(), o)
	m.Files = []score.FilePlan{p}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	return p, m.Jobs()
}

// TestLines reads rows cut into jobs of all sizes, whatever the compression.
func TestLines(t *testing.T) {
	var b strings.Builder
	b.WriteString("\xef\xbb\xbf")
	var want []string
	for i := range 300 {
		text := strings.Repeat(fmt.Sprintf("%d \u00e9\n", i), i%40)
		if i == 77 {
			text = strings.Repeat("long ", 70_000)
		}
		fmt.Fprintf(&b, "{\"id\": \"d%d\", \"n\": %d, \"meta\": {\"text\": %q}, \"x\": %g}\r\n", i, i, text,
			float64(i)/2)
		want = append(want, text)
		if i%50 == 0 {
			b.WriteString("\n  \t\r\n")
		}
	}
	whole := strings.TrimSuffix(b.String(), "\r\n") // the last line has no end
	for _, name := range []string{"a.jsonl", "a.ndjson", "a.jsonl.gz", "a.jsonl.zst"} {
		for _, jobTokens := range []int64{1, 500, 1 << 40} {
			if testing.Short() && jobTokens == 1 { // hundreds of jobs
				continue
			}
			o := linesOptions()
			o.TextColumn = "meta.text"
			path := writeLines(t, name, whole)
			p, jobs := linesJobs(t, path, o, jobTokens)
			if p.Rows != 300 || len(jobs) != len(p.Cuts) || (len(p.Offsets) > 0) == jsonl.Compressed(name) ||
				jobTokens == 1 && !jsonl.Compressed(name) && len(jobs) != 300 {
				t.Fatalf("%s: %d rows, %d jobs, %d offsets", name, p.Rows, len(jobs), len(p.Offsets))
			}
			var got []Row
			for _, j := range jobs {
				got = append(got, readAll(t, j)...)
			}
			for i, r := range got {
				if r.Index != int64(i) || r.Text != want[i] || r.Null || r.Problem != "" {
					t.Fatalf("%s row %d: %.80v", name, i, r)
				}
				k := r.Kept.values
				if string(k[0].ByteArray()) != fmt.Sprint("d", i) || k[1].Int64() != int64(i) ||
					k[3].Double() != float64(i)/2 || k[2].Kind() != parquet.ByteArray {
					t.Fatalf("%s row %d: kept %v", name, i, k)
				}
			}
			if len(got) != 300 {
				t.Fatalf("%s: %d rows", name, len(got))
			}
			one, err := ReadRow(t.Context(), jobs[len(jobs)-1], 299)
			if err != nil || one.Text != want[299] || one.Index != 299 {
				t.Fatalf("%.80v, %v", one, err)
			}
		}
	}
}

// TestBadLines: what is wrong with a line costs its row and says what.
func TestBadLines(t *testing.T) {
	deep := `{"text": ` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`
	rows := []struct{ line, problem, text string }{
		{`{"text": "good", "n": 1, "mixed": 1}`, "", "good"},
		{`{"text": "bad`, "bad JSON: unexpected end of JSON input", ""},
		{`{"text": 5, "n": 1.5, "mixed": "x"}`, "text is a number, not a string", ""},
		{`{"text": ["a"]}`, "text is an array, not a string", ""},
		{`["text"]`, "bad JSON: a line is an object, this is an array", ""},
		{`null`, "bad JSON: a line is an object, this is null", ""},
		{"{\"text\": \"\xff\"}", "not UTF-8", ""},
		{deep, "bad JSON: invalid character '[' exceeded max depth", ""},
		{`{"text": "a"} {"text": "b"}`, "bad JSON: invalid character '{' after top-level value", ""},
		{`{"text": "dup", "text": "last"}`, "", "last"},
		{`{"text": "\u0041\ud83d\ude00"}`, "", "A\U0001f600"},
		{`{"text": "` + strings.Repeat("x", jsonl.MaxLine) + `"}`, fmt.Sprintf("a line of %d bytes, more than %d",
			jsonl.MaxLine+13, jsonl.MaxLine), ""},
		{`{"text": "after"}`, "", "after"},
	}
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(r.line + "\n")
	}
	o := linesOptions()
	_, jobs := linesJobs(t, writeLines(t, "bad.jsonl.gz", b.String()), o, 1<<40)
	for i, r := range readAll(t, jobs[0]) {
		if w := rows[i]; !strings.HasPrefix(r.Problem, w.problem) || (r.Problem == "") != (w.problem == "") ||
			r.Text != w.text {
			t.Errorf("row %d: %.200q, %.80q; want %q", i, r.Problem, r.Text, w.problem)
		}
	}
	r := readAll(t, jobs[0])[2].Kept.values // a double among integers makes doubles
	if r[1].Double() != 1.5 || string(r[2].ByteArray()) != "x" {
		t.Errorf("kept %v", r)
	}
}

func TestLinesPlanErrors(t *testing.T) {
	good := strings.Repeat("{\"text\": \"x\", \"id\": 1}\n", 1000)
	o := shardtest.TextOptions()
	for _, c := range []struct{ name, text, want string }{
		{"a.jsonl", "{\"content\": \"x\"}\n", `no field "text" in the first 1000 rows; the file has "content" string`},
		{"b.jsonl", "garbage\nmore\n", `no field "text"`},
		{"c.jsonl.gz", "", "compressed data"},
	} {
		path := writeLines(t, c.name, c.text)
		if c.text == "" {
			b := packLines(t, "x.gz", []byte(good))
			if err := os.WriteFile(path, b[:len(b)-20], 0o666); err != nil {
				t.Fatal(err)
			}
		}
		p, err := Plan(t.Context(), shardtest.Input(t, path), PlanOptions{Options: o})
		if err != nil || !strings.Contains(p.Error, c.want) {
			t.Errorf("%s: %v, %q; want %q", c.name, err, p.Error, c.want)
		}
	}
	for _, name := range []string{"empty.jsonl", "blank.jsonl", "empty.jsonl.gz"} {
		p, err := Plan(t.Context(), shardtest.Input(t, writeLines(t, name, strings.Repeat("\n", len(name)-11))),
			PlanOptions{Options: o})
		if err != nil || p.Error != "" || p.Rows != 0 {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	// A job whose offset is no line's beginning is refused.
	_, jobs := linesJobs(t, writeLines(t, "d.jsonl", good), o, 100)
	j := jobs[1]
	j.Offset++
	if _, err := OpenRange(t.Context(), j); !errors.Is(err, pq.ErrCorrupt) {
		t.Errorf("error %v", err)
	}
}

func TestLineIDs(t *testing.T) {
	o := shardtest.TextOptions()
	o.TextColumn, o.IDsColumn = "", "tokens.ids"
	text := `{"tokens": {"ids": [1, 2, 3]}}
{"tokens": {"ids": []}}
{"tokens": null}
{"tokens": {"ids": [1, 4294967296]}}
{"tokens": {"ids": [1, "2"]}}
{"tokens": {"ids": [1.5]}}
{"tokens": {"ids": [null]}}
{"tokens": {"ids": 7}}
`
	_, jobs := linesJobs(t, writeLines(t, "ids.jsonl", text), o, 1<<40)
	rows := readAll(t, jobs[0])
	if !slices.Equal(rows[0].IDs, []int32{1, 2, 3}) || rows[1].IDs == nil || len(rows[1].IDs) != 0 || !rows[2].Null {
		t.Errorf("%+v", rows[:3])
	}
	for i, want := range []string{"token id 4294967296 does not fit 32 bits", "a token id is a string",
		"token id 1.5 does not fit 32 bits", "a token id is null",
		"tokens.ids is a number, not an array of token ids"} {
		if got := rows[3+i]; got.Problem != want || got.IDs != nil {
			t.Errorf("%+v, want %q", got, want)
		}
	}
}

// nestedRow has text and ids inside structs.
type nestedRow struct {
	ID   string `parquet:"id"`
	Meta *struct {
		Deep *struct {
			Text *string `parquet:"text,optional"`
			IDs  []int32 `parquet:"ids,list"`
			Bare []int64 `parquet:"bare"`
		} `parquet:"deep,optional"`
	} `parquet:"meta,optional"`
	Dotted string `parquet:"meta.deep"`
}

func TestNestedColumns(t *testing.T) {
	rows := make([]nestedRow, 4)
	text := "hello"
	for i := range rows {
		rows[i].ID = fmt.Sprint(i)
		rows[i].Dotted = "top"
	}
	type deep = struct {
		Text *string `parquet:"text,optional"`
		IDs  []int32 `parquet:"ids,list"`
		Bare []int64 `parquet:"bare"`
	}
	type meta = struct {
		Deep *deep `parquet:"deep,optional"`
	}
	rows[0].Meta = &meta{&deep{&text, []int32{1, 2}, []int64{3, 4}}}
	rows[1].Meta = &meta{&deep{}}
	rows[2].Meta = &meta{}
	path := filepath.Join(t.TempDir(), "nested.parquet")
	if err := parquet.WriteFile(path, rows); err != nil {
		t.Fatal(err)
	}
	read := func(o score.Options) []Row {
		p, err := Plan(t.Context(), shardtest.Input(t, path), PlanOptions{Options: o})
		if err != nil || p.Error != "" {
			t.Fatalf("%v, %s", err, p.Error)
		}
		return readAll(t, shardtest.Job(t, path, t.TempDir(), o, 0, 3))
	}
	o := shardtest.TextOptions()
	o.TextColumn = "meta.deep.text"
	got := read(o)
	if got[0].Text != text || got[0].Null || !got[1].Null || !got[2].Null || !got[3].Null {
		t.Errorf("%+v", got)
	}
	if o.TextColumn = "meta.deep"; read(o)[0].Text != "top" {
		t.Error("a top-level column with a dot in its name does not win")
	}
	o.TextColumn = ""
	for name, want := range map[string][]int32{"meta.deep.ids": {1, 2}, "meta.deep.bare": {3, 4}} {
		o.IDsColumn = name
		got := read(o)
		if !slices.Equal(got[0].IDs, want) || got[1].Null || len(got[1].IDs) != 0 || !got[2].Null || !got[3].Null {
			t.Errorf("%s: %+v", name, got)
		}
	}
	o.IDsColumn, o.TextColumn = "", "meta.nothing"
	if p, err := Plan(t.Context(), shardtest.Input(t, path), PlanOptions{Options: o}); err != nil ||
		!strings.Contains(p.Error, `no field "nothing" in column "meta"`) {
		t.Errorf("%v, %q", err, p.Error)
	}
}

// FuzzLines: any bytes give rows, each with its text or a reason, and as many as
// were planned.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"text\": \"x\", \"id\": 1}\n\n{\"text\": null}\n[]\n{\"text\":1e999,\"id\":true}"), byte(0))
	f.Add([]byte("{\"text\": \"x\"}\n"), byte(1))
	f.Add([]byte("{\"text\": \"x\"}\n"), byte(2))
	f.Add(packLines(f, "x.zst", []byte("{\"text\": \"x\"}\n")), byte(4))
	f.Fuzz(func(t *testing.T, b []byte, kind byte) {
		name := []string{"a.jsonl", "a.jsonl.gz", "a.jsonl.zst"}[kind%3]
		if kind < 3 {
			b = packLines(t, name, b)
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		o := linesOptions()
		p, err := Plan(context.Background(), shardtest.Input(t, path), PlanOptions{Options: o, JobTokens: 3})
		if err != nil {
			t.Fatal(err)
		}
		if p.Error != "" || p.Rows == 0 {
			return
		}
		m := shardtest.Manifest("/out", o)
		m.Files = []score.FilePlan{p}
		if err := m.Validate(); err != nil {
			t.Fatal(err)
		}
		n := int64(0)
		for _, j := range m.Jobs() {
			r, err := OpenRange(context.Background(), j)
			if err != nil {
				t.Fatal(err)
			}
			for row := j.First; row <= j.Last; row++ {
				if _, err := r.Next(); err != nil {
					t.Fatal(err)
				}
				n++
			}
			r.Close()
		}
		if n != p.Rows {
			t.Fatalf("%d rows of %d", n, p.Rows)
		}
	})
}

// BenchmarkPlanLines says how fast rows are counted.
func BenchmarkPlanLines(b *testing.B) {
	line := "{\"id\": \"abc\", \"text\": \"" + strings.Repeat("some words of a web page ", 120) + "\"}\n"
	path := writeLines(b, "big.jsonl", strings.Repeat(line, 1<<28/len(line)))
	in := shardtest.Input(b, path)
	b.SetBytes(in.Size)
	for b.Loop() {
		if p, err := Plan(context.Background(), in, PlanOptions{Options: shardtest.TextOptions(),
			JobTokens: 4_000_000}); err != nil || p.Rows == 0 {
			b.Fatal(err)
		}
	}
}
