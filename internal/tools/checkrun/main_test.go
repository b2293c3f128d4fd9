package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/discover"
	"surprisal/internal/shard/outdir"
)

type textRow struct {
	ID   string `parquet:"id"`
	Text string `parquet:"text"`
}

// makeRun writes an input of 30 rows and its finished output of three jobs, and
// gives the output folder and its score files.
func makeRun(t *testing.T, in, run string) (out string, files []string) {
	t.Helper()
	out = filepath.Join(t.TempDir(), "out")
	inputs, _, err := discover.Inputs(t.Context(), []string{in}, out)
	if err != nil {
		t.Fatal(err)
	}
	m := &score.Manifest{
		Version: score.FormatVersion, Run: run, Created: "2026-01-02T03:04:05Z", Program: "test", Out: out,
		Inputs: []string{in},
		Options: score.Options{TextColumn: "text", Long: score.LongCarry, MaxLength: 64, Special: score.SpecialText,
			Engine: score.EngineCPU, PerToken: true},
		Model: score.Model{Dir: "/m", Digest: "sha256:aa"},
		Files: []score.FilePlan{{Input: inputs[0], Rows: 30, RowGroups: 3, Cuts: []int64{0, 10, 23}, Offsets: offsets(t,
			in)}},
	}
	if isLines(in) {
		m.Options.Keep = []string{"id", "n", "x", "ok", "m"}
	}
	m.ConfigDigest = score.ConfigDigest(m.Options, m.Model)
	if err := outdir.WriteManifest(t.Context(), out, m); err != nil {
		t.Fatal(err)
	}
	tokens := int64(0)
	for _, j := range m.Jobs() {
		r, err := shard.OpenRange(t.Context(), j)
		if err != nil {
			t.Fatal(err)
		}
		w, err := outdir.Create(t.Context(), j, r.Columns(), shard.Metadata{Engine: "cpu", Program: "test"})
		if err != nil {
			t.Fatal(err)
		}
		for {
			row, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			s := score.Score{Row: row.Index, Bytes: int64(len(row.Text)), Tokens: row.Index % 4,
				SumNLL: 1.25 * float64(row.Index%4)}
			if row.Index%7 == 3 {
				s = score.Score{Row: row.Index, Bytes: -1, Error: "null text"}
			}
			for i := range s.Tokens {
				s.TokenIDs, s.TokenNLL = append(s.TokenIDs, int32(i)), append(s.TokenNLL, 1.25)
			}
			if s.Error == "" {
				s.TokenIDs = append(s.TokenIDs, 9)
				tokens += s.Tokens
			}
			if err := w.Write(s, row.Kept); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(out, j.Output))
	}
	body := fmt.Sprintf(`{"run": %q, "config_digest": %q, "documents": 30, "tokens": %d}`, run, m.ConfigDigest, tokens)
	if err := outdir.WriteSuccess(t.Context(), out, []byte(body)); err != nil {
		t.Fatal(err)
	}
	return out, files
}

// offsets are the bytes at which rows 0, 10 and 23 begin.
func offsets(t *testing.T, in string) []int64 {
	t.Helper()
	if !strings.HasSuffix(in, ".jsonl") {
		return nil
	}
	b, err := os.ReadFile(in)
	if err != nil {
		t.Fatal(err)
	}
	var at []int64
	row, off := 0, 0
	for line := range bytes.Lines(b) {
		if len(bytes.TrimSpace(line)) > 0 {
			if row == 0 || row == 10 || row == 23 {
				at = append(at, int64(off))
			}
			row++
		}
		off += len(line)
	}
	return at
}

// makeLines is makeInput in JSON lines, some of them bad, compressed as the name says.
func makeLines(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	var b bytes.Buffer
	var w io.WriteCloser = nopCloser{&b}
	switch filepath.Ext(name) {
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".zst":
		var err error
		if w, err = zstd.NewWriter(&b); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		line := fmt.Sprintf(`{"id": "id-%d", "n": %d, "x": %g, "ok": %v, "m": {"a": [%d, "b"]}, "text": %q}`, i, i,
			float64(i)/4, i%2 == 0, i, strings.Repeat("x", i))
		switch i {
		case 12:
			line = `{"id": "torn`
		case 13:
			line = `[1, 2]`
		case 14:
			line = "{\"id\": \"\xff\"}"
		case 15:
			line = `{"id": 7, "n": "seven", "x": true, "ok": 1, "m": null, "text": "t"}` + "\n  \r\n"
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// TestLines: kept columns are held to the fields of JSON lines.
func TestLines(t *testing.T) {
	for _, name := range []string{"a.jsonl", "a.ndjson.gz", "a.jsonl.zst"} {
		in := makeLines(t, name)
		out, _ := makeRun(t, in, "run-a")
		code, r := report(t, out)
		if code != 0 || r.Violations != 0 {
			t.Errorf("%s: exit %d: %+v", name, code, r)
		}
		for _, p := range r.Promises {
			if strings.HasPrefix(p.Name, "kept") && p.Checked != 30 {
				t.Errorf("%s: %+v", name, p)
			}
		}
		if name != "a.jsonl" {
			continue
		}
		// The input changes, its size and time don't.
		b, err := os.ReadFile(in)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(in)
		if err != nil {
			t.Fatal(err)
		}
		for what, change := range map[string][2]string{"text": {`"id-3"`, `"id-4"`}, "integer": {`"n": 4`, `"n": 9`},
			"number": {"6.75", "6.25"}, "boolean": {`"ok": true`, `"ok": null`}, "object": {`[5, "b"]`, `[5, "c"]`}} {
			lie := bytes.Replace(b, []byte(change[0]), []byte(change[1]), 1)
			if err := errors.Join(os.WriteFile(in, lie, 0o600), os.Chtimes(in, st.ModTime(),
				st.ModTime())); err != nil ||
				bytes.Equal(lie, b) {
				t.Fatal(what, err)
			}
			if code, r := report(t, out); code != 1 || r.Violations == 0 {
				t.Errorf("another %s: exit %d: %+v", what, code, r)
			}
		}
	}
}

func makeInput(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.parquet")
	rows := make([]textRow, 30)
	for i := range rows {
		rows[i] = textRow{ID: fmt.Sprint("id-", i), Text: strings.Repeat("x", i)}
	}
	if err := parquet.WriteFile(path, rows, parquet.MaxRowsPerRowGroup(10)); err != nil {
		t.Fatal(err)
	}
	return path
}

func report(t *testing.T, args ...string) (int, result) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(append([]string{"--json"}, args...), &stdout, &stderr)
	var r result
	if code != 2 {
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
			t.Fatalf("%v in %s", err, stdout.String())
		}
	}
	return code, r
}

// TestUndisturbed: a whole run breaks nothing, and is the same as another of its like.
func TestUndisturbed(t *testing.T) {
	in := makeInput(t)
	a, _ := makeRun(t, in, "run-a")
	b, _ := makeRun(t, in, "run-b")
	code, r := report(t, "--same-as", b, a)
	if code != 0 || r.Violations != 0 || len(r.Promises) != 10 {
		t.Errorf("exit %d: %+v", code, r)
	}
	for _, p := range r.Promises {
		if p.Checked == 0 || len(p.Broken) > 0 {
			t.Errorf("%+v", p)
		}
	}
}

// TestViolations breaks each promise once.
func TestViolations(t *testing.T) {
	in := makeInput(t)
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, promise, says string
		breaks              func(t *testing.T, out string, files []string)
	}{
		{"missing", "every job", "is missing", func(t *testing.T, _ string, f []string) { must(t, os.Remove(f[1])) }},
		{"temporary", "nothing else", "temporary", func(t *testing.T, out string, _ []string) {
			must(t, os.WriteFile(filepath.Join(out, "a", ".rows-run-a.X.tmp"), nil, 0o666))
		}},
		{"foreign", "nothing else", "no job", func(t *testing.T, out string, f []string) {
			must(t, os.Rename(f[1], filepath.Join(out, "a", "rows-000000000001-000000000013.parquet")))
		}},
		{"swapped", "metadata", "rows.first", func(t *testing.T, _ string, f []string) {
			must(t,
				os.Rename(f[0], f[1]))
		}},
		{"truncated", "every row once", "rows-000000000000", func(t *testing.T, _ string, f []string) {
			must(t,
				os.Truncate(f[0], 700))
		}},
		{"no success", "_SUCCESS", "no _SUCCESS", func(t *testing.T, out string, _ []string) {
			must(t,
				os.Remove(filepath.Join(out, "_SUCCESS")))
		}},
		{"early success", "_SUCCESS", "not everything", func(t *testing.T, _ string, f []string) {
			must(t,
				os.Remove(f[2]))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, files := makeRun(t, in, "run-a")
			c.breaks(t, out, files)
			code, r := report(t, out)
			if code != 1 {
				t.Fatalf("exit %d", code)
			}
			for _, p := range r.Promises {
				if strings.HasPrefix(p.Name, c.promise) && strings.Contains(strings.Join(p.Broken, "\n"), c.says) {
					return
				}
			}
			t.Errorf("no %q in %q of %+v", c.says, c.promise, r)
		})
	}
}

// TestDead: a job without its file is in order when it is dead, and only then.
func TestDead(t *testing.T) {
	out, files := makeRun(t, makeInput(t), "run-a")
	m, err := readManifest(out)
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(t.TempDir(), "dead.jsonl")
	if err := os.WriteFile(dead, fmt.Appendf(nil, "{\"job\": %q}\n", m.jobs()[1].id), 0o666); err != nil {
		t.Fatal(err)
	}
	if code, r := report(t, "--dead", dead, out); code != 1 {
		t.Errorf("dead and committed: exit %d, %+v", code, r)
	}
	for _, gone := range []string{files[1], filepath.Join(out, "_SUCCESS")} {
		if err := os.Remove(gone); err != nil {
			t.Fatal(err)
		}
	}
	if code, r := report(t, "--dead", dead, out); code != 0 {
		t.Errorf("dead: exit %d, %+v", code, r)
	}
}

// TestDiffers: another score is found by --same-as, whatever the file says of itself.
func TestDiffers(t *testing.T) {
	in := makeInput(t)
	a, files := makeRun(t, in, "run-a")
	b, _ := makeRun(t, in, "run-a")
	body, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	body[10] ^= 4
	if err := os.WriteFile(files[0], body, 0o666); err != nil {
		t.Fatal(err)
	}
	code, r := report(t, "--same-as", b, a)
	last := r.Promises[len(r.Promises)-1]
	if code != 1 || len(last.Broken) != 1 || !strings.Contains(last.Broken[0], "first difference at 10") {
		t.Errorf("exit %d: %+v", code, last)
	}
}

func TestUsage(t *testing.T) {
	if code := run(nil, io.Discard, io.Discard); code != 2 {
		t.Errorf("no arguments: exit %d", code)
	}
	if code, _ := report(t, t.TempDir()); code != 2 {
		t.Errorf("no manifest: exit %d", code)
	}
}
