package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/testkit/pythontest"
)

// someTexts are n small documents, each another.
func someTexts(n int) []textRow {
	rows := make([]textRow, n)
	for i := range rows {
		rows[i] = textRow{ID: fmt.Sprintf("doc-%03d", i),
			Text: ptr(strings.Repeat(fmt.Sprintf("let v%d = %d + x; ", i, i*i), 2+i%5))}
	}
	rows[3].Text = nil
	return rows
}

// verified is what verify --json prints.
type verified struct {
	Run            string
	Jobs, Verified int
	Queued         int
	Findings       []struct{ Kind, File, What, Remedy, Mended string }
	Rescored       struct{ Rows, Equal, Close int }
}

func verify(t *testing.T, code int, args ...string) (v verified) {
	t.Helper()
	r := dispatcher(t, append([]string{"verify", "--json"}, args...)...).want(t, code)
	fromJSON(t, r, &v)
	return v
}

func (v verified) kinds() string {
	var k []string
	for _, f := range v.Findings {
		k = append(k, f.Kind)
	}
	return strings.Join(k, " ")
}

// damage is one way to spoil an output folder: a and b are two of its score files.
type damage struct {
	name  string
	kinds string // of the findings, in order
	do    func(t *testing.T, out, a, b string)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// edit changes a file's bytes.
func edit(change func(b []byte) []byte) func(*testing.T, string, string, string) {
	return func(t *testing.T, _, a, _ string) {
		t.Helper()
		b, err := os.ReadFile(a)
		must(t, err)
		must(t, os.WriteFile(a, change(b), 0o666))
	}
}

func flip(at func(b []byte) int) func([]byte) []byte {
	return func(b []byte) []byte {
		b[at(b)] ^= 0x10
		return b
	}
}

func footerOf(b []byte) int { return len(b) - 8 - int(binary.LittleEndian.Uint32(b[len(b)-8:])) }

// rewrite reads a score file with the parquet library and writes it again, as a
// tool would that knows nothing of digests; change may alter rows and metadata.
func rewrite(change func(rows []parquet.Row, meta map[string]string) []parquet.Row) func(*testing.T, string, string,
	string) {
	return func(t *testing.T, _, a, _ string) {
		t.Helper()
		b, err := os.ReadFile(a)
		must(t, err)
		f, err := parquet.OpenFile(bytes.NewReader(b), int64(len(b)))
		must(t, err)
		meta := map[string]string{}
		for _, kv := range f.Metadata().KeyValueMetadata {
			meta[kv.Key] = kv.Value
		}
		var rows []parquet.Row
		for _, g := range f.RowGroups() {
			r := g.Rows()
			for {
				one := make([]parquet.Row, 1)
				n, err := r.ReadRows(one)
				if n == 1 {
					rows = append(rows, one[0].Clone())
				}
				if errors.Is(err, io.EOF) {
					break
				}
				must(t, err)
			}
			must(t, r.Close())
		}
		rows = change(rows, meta)
		var out bytes.Buffer
		// nolint:staticcheck // columns are known at run time only
		w := parquet.NewWriter(&out, f.Schema(), parquet.Compression(&parquet.Zstd))
		for k, v := range meta {
			w.SetKeyValueMetadata(k, v)
		}
		_, err = w.WriteRows(rows)
		must(t, errors.Join(err, w.Close()))
		must(t, os.WriteFile(a, out.Bytes(), 0o666))
	}
}

func damages() []damage {
	manifest := func(change func([]byte) []byte) func(*testing.T, string, string, string) {
		return func(t *testing.T, out, _, _ string) {
			edit(change)(t, "", filepath.Join(out, score.ManifestName), "")
		}
	}
	return []damage{
		{"truncated footer", "damaged success", edit(func(b []byte) []byte { return b[:len(b)-5] })},
		{"truncated data", "damaged success", edit(func(b []byte) []byte { return slices.Concat(b[:60], b[80:]) })},
		{"empty", "damaged success", edit(func([]byte) []byte { return nil })},
		{"bit in a page", "damaged success", edit(flip(func([]byte) int { return 70 }))},
		{"bit in the footer", "damaged success", edit(flip(func(b []byte) int {
			// of a value that decides nothing
			return bytes.Index(b, []byte("surprisal.device")) + len("surprisal.device") + 3
		}))},
		{"bit before the footer", "damaged success", edit(flip(func(b []byte) int { return footerOf(b) - 1 }))},
		{"missing", "missing success", func(t *testing.T, _, a, _ string) { must(t, os.Remove(a)) }},
		{"swapped files", "foreign foreign success", func(t *testing.T, _, a, b string) {
			must(t, os.Rename(a, a+"x"))
			must(t, os.Rename(b, a))
			must(t, os.Rename(a+"x", b))
		}},
		{"foreign score file", "foreign", func(t *testing.T, out, a, _ string) {
			rewrite(func(r []parquet.Row, m map[string]string) []parquet.Row { m["surprisal.job"] = "x"; return r })(t,
				"", copied(t, a, filepath.Join(out, "b", "rows-000000000000-000000000009.parquet")), "")
		}},
		{"foreign parquet", "foreign", func(t *testing.T, out, _, _ string) {
			must(t, os.WriteFile(filepath.Join(out, "a", "notes.parquet"), []byte("PAR1"), 0o666))
		}},
		{"duplicate", "duplicate", func(t *testing.T, out, a, _ string) {
			copied(t, a, filepath.Join(out, "a", "rows-000000000001-000000000007.parquet"))
		}},
		{"a link", "damaged success", func(t *testing.T, _, a, b string) {
			must(t, os.Remove(a))
			must(t, os.Symlink(b, a))
		}},
		{"rows in another order", "damaged success", rewrite(func(r []parquet.Row, _ map[string]string) []parquet.Row {
			slices.Reverse(r)
			return r
		})},
		{"row lost, counts fixed up", "foreign success", rewrite(func(r []parquet.Row,
			m map[string]string) []parquet.Row {
			n := len(r) - 1
			m["surprisal.total.documents"] = fmt.Sprint(n)
			m["surprisal.rows.last"] = fmt.Sprint(n - 1)
			return r[:n]
		})},
		{"row doubled", "damaged success", rewrite(func(r []parquet.Row, _ map[string]string) []parquet.Row {
			r[1] = r[0]
			return r
		})},
		{"written anew, nothing changed", "damaged success", rewrite(func(r []parquet.Row,
			_ map[string]string) []parquet.Row {
			return r
		})},
		{"pyarrow", "damaged success", func(t *testing.T, _, a, _ string) { pyarrow(t, a) }},
		{"temporary", "temporary", func(t *testing.T, out, _, _ string) {
			must(t, os.WriteFile(filepath.Join(out, "a", ".rows-x.ABCDEF.tmp"), []byte("PAR1"), 0o666))
		}},
		{"manifest changed", "manifest", manifest(func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"estimated_tokens": `), []byte(`"estimated_tokens": 1`), 1)
		})},
		{"manifest cut otherwise", "manifest", manifest(func(b []byte) []byte {
			i := bytes.Index(b, []byte(`"cuts": [`))
			j := i + bytes.IndexByte(b[i:], ',')
			return slices.Concat(b[:i+len(`"cuts": [`)], b[i+len(`"cuts": [`):j], []byte(", 1, "), b[j+1:])
		})},
		{"manifest truncated", "manifest", manifest(func(b []byte) []byte { return b[:len(b)/2] })},
		{"manifest gone", "manifest", func(t *testing.T, out, _, _ string) {
			must(t,
				os.Remove(filepath.Join(out, score.ManifestName)))
		}},
		{"manifest's copy gone", "manifest", func(t *testing.T, out, _, _ string) {
			must(t, os.Remove(filepath.Join(out, ".surprisal.manifest.gz")))
		}},
		{"success changed", "success", func(t *testing.T, out, _, _ string) {
			must(t, os.WriteFile(filepath.Join(out, score.SuccessName), []byte("{}\n"), 0o666))
		}},
		{"success gone", "success", func(t *testing.T, out, _, _ string) {
			must(t,
				os.Remove(filepath.Join(out, score.SuccessName)))
		}},
	}
}

func copied(t *testing.T, from, to string) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(to), 0o777))
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o666))
	return to
}

// pyarrow changes one score with another tool, which keeps the metadata.
func pyarrow(t *testing.T, path string) {
	t.Helper()
	script := `
import sys, pyarrow as pa, pyarrow.parquet as pq
t = pq.read_table(sys.argv[1])
i = t.column_names.index("sum_nll")
v = t["sum_nll"].to_pylist()
v[1] += 0.5
pq.write_table(t.set_column(i, t.schema.field(i), pa.array(v, pa.float64())), sys.argv[1], compression="zstd")
`
	if out, err := exec.Command(pythontest.With(t, "pyarrow"), "-c", script, path).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// contents are OUT's files but the lock and the quarantine.
func contents(t *testing.T, out string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".surprisal-quarantine" {
				return filepath.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(out, path)
		if err != nil || d.Name() == ".surprisal.lock" {
			return err
		}
		b, err := os.ReadFile(path)
		all[rel] = string(b)
		return err
	}))
	return all
}

func sameContents(t *testing.T, want, have map[string]string) {
	t.Helper()
	for name, b := range want {
		if have[name] != b {
			t.Errorf("%s is not as in an undisturbed run (%d bytes, %d there)", name, len(have[name]), len(b))
		}
	}
	for name := range have {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is not in an undisturbed run", name)
		}
	}
}

// TestVerifyFindsAndMends plants damage of each kind: verify finds it and names
// its kind, --repair and the run's own command mend it, and the end is
// byte-identical with an undisturbed run.
func TestVerifyFindsAndMends(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in, calm := filepath.Join(dir, "in"), filepath.Join(dir, "calm")
	writeParquet(t, filepath.Join(in, "a.parquet"), someTexts(30), 5)
	run := func(out string) []string {
		return []string{"run", "--model", demoModel, "--out", out, "--job-tokens", "300", "--threads", "1", in}
	}
	dispatcher(t, run(calm)...).want(t, 0)
	verify(t, 0, calm)
	want := contents(t, calm)
	var files []string
	for path, err := range outdir.ListOutputs(t.Context(), calm) {
		must(t, err)
		rel, err := filepath.Rel(calm, path)
		must(t, err)
		files = append(files, rel)
	}
	if len(files) < 3 {
		t.Fatalf("only %d score files", len(files))
	}
	kept := filepath.Join(t.TempDir(), "kept")
	must(t, os.CopyFS(kept, os.DirFS(calm)))
	cases := damages()
	if testing.Short() {
		cases = cases[:4]
	}
	for _, d := range cases {
		t.Run(d.name, func(t *testing.T) {
			out := calm // a manifest is of the folder it was written in
			must(t, os.RemoveAll(out))
			must(t, os.CopyFS(out, os.DirFS(kept)))
			d.do(t, out, filepath.Join(out, files[0]), filepath.Join(out, files[1]))
			v := verify(t, 1, out)
			if v.kinds() != d.kinds {
				t.Errorf("found %q, want %q: %+v", v.kinds(), d.kinds, v.Findings)
			}
			text := dispatcher(t, "verify", out).want(t, 1).stdout
			for _, f := range v.Findings {
				if f.What == "" || f.Remedy == "" || f.File == "" {
					t.Errorf("%+v", f)
				}
				says(t, text, f.Kind+"  "+f.File)
			}
			for _, f := range verify(t, 1, "--repair", out).Findings {
				if f.Mended == "" && f.Kind != "missing" {
					t.Errorf("not mended: %+v", f)
				}
			}
			dispatcher(t, run(out)...).want(t, 0)
			verify(t, 0, out)
			sameContents(t, want, contents(t, out))
		})
	}
}

// TestVerifyInputs: a changed and a vanished input are found; nothing is moved.
func TestVerifyInputs(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	path := filepath.Join(in, "a.parquet")
	writeParquet(t, path, someTexts(12), 5)
	dispatcher(t, "run", "--model", demoModel, "--out", out, in).want(t, 0)
	st, err := os.Stat(path)
	must(t, err)
	must(t, os.Chtimes(path, time.Now(), st.ModTime().Add(time.Second)))
	v := verify(t, 1, "--repair", out)
	if v.kinds() != "input" || v.Verified != v.Jobs {
		t.Errorf("changed: %+v", v)
	}
	must(t, os.Rename(path, path+".away"))
	if v := verify(t, 1, out); v.kinds() != "input" {
		t.Errorf("gone: %+v", v)
	}
	must(t, os.Rename(path+".away", path))
	must(t, os.Chtimes(path, time.Now(), st.ModTime()))
	verify(t, 0, out)
	says(t, dispatcher(t, "verify", dir).want(t, 2).stderr, "not an output folder of a run")
	says(t, dispatcher(t, "verify", filepath.Join(dir, "nowhere")).want(t, 2).stderr, "neither a folder nor a run ID")
}

// TestRescore: rows scored again are the same to the last bit; a forged file that
// agrees with itself in everything is found by it alone.
func TestRescore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	writeParquet(t, filepath.Join(in, "a.parquet"), someTexts(40), 7)
	run := []string{"run", "--model", demoModel, "--out", out, "--job-tokens", "300", "--long", "window",
		"--max-length", "16", in}
	dispatcher(t, run...).want(t, 0)
	v := verify(t, 0, "--rescore", "25", "--seed", "7", out)
	if v.Rescored.Rows != 25 || v.Rescored.Equal != 25 {
		t.Errorf("%+v", v.Rescored)
	}
	want := contents(t, out)
	m, err := outdir.ReadManifest(t.Context(), out)
	must(t, err)
	forge(t, m.Jobs()[1])
	verify(t, 0, out) // nothing else can tell
	v = verify(t, 1, "--rescore", "1000", "--repair", out)
	if v.Rescored.Rows != 40 || v.Rescored.Equal >= 40 || v.Rescored.Equal == 0 ||
		!strings.HasPrefix(v.kinds(), "score") {
		t.Errorf("%+v", v)
	}
	dispatcher(t, run...).want(t, 0)
	sameContents(t, want, contents(t, out))
}

// forge writes a job's file anew with other scores and all digests right.
func forge(t *testing.T, j score.Job) {
	t.Helper()
	path := filepath.Join(j.Out, filepath.FromSlash(j.Output))
	c, err := shard.Inspect(t.Context(), path)
	must(t, err)
	var old []score.Score
	must(t, shard.ReadScores(t.Context(), path, func(s score.Score) error {
		old = append(old, s)
		return nil
	}))
	must(t, os.Remove(path))
	r, err := shard.OpenRange(t.Context(), j)
	must(t, err)
	defer r.Close()
	w, err := outdir.Create(t.Context(), j, r.Columns(), c.Metadata)
	must(t, err)
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		s := old[row.Index-j.First]
		s.SumNLL++
		must(t, w.Write(s, row.Kept))
	}
	_, err = w.Commit(t.Context())
	must(t, err)
}

// TestVerifyQueuesAgain: repair of a submitted run queues what it moved aside, and
// workers mend it.
func TestVerifyQueuesAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startQueue(t)
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	writeParquet(t, filepath.Join(in, "a.parquet"), someTexts(30), 5)
	run := strings.TrimSpace(dispatcher(t, "submit", "--model", demoModel, "--out", out, "--job-tokens", "300",
		in).want(t, 0).stdout)
	worker, wr := start(t, nil, "worker", "--threads", "1")
	dispatcher(t, "wait", run).want(t, 0)
	want := contents(t, out)
	var files []string
	for path, err := range outdir.ListOutputs(t.Context(), out) {
		must(t, err)
		files = append(files, path)
	}
	edit(flip(func([]byte) int { return 70 }))(t, "", files[0], "")
	must(t, os.Remove(files[1]))
	v := verify(t, 1, "--repair", run)
	if v.kinds() != "damaged missing success" || v.Queued != 2 {
		b, _ := json.Marshal(v)
		t.Errorf("%s", b)
	}
	dispatcher(t, "wait", run).want(t, 0)
	verify(t, 0, run)
	sameContents(t, want, contents(t, out))
	must(t, worker.Process.Signal(os.Interrupt))
	wait(t, worker, wr).want(t, 0)
}

// TestRescoreOnAnotherSet: where an instruction set gives other bits, scores are
// compared within the bound of docs/scores.md. The files name their set.
func TestRescoreOnAnotherSet(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs sets with different bits, which only x86 has")
	}
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	writeParquet(t, filepath.Join(in, "a.parquet"), someTexts(40), 7)
	t.Setenv("SURPRISAL_CPU_SET", "sse2")
	dispatcher(t, "run", "--engine", "cpu", "--model", demoModel, "--out", out, in).want(t, 0)
	if v := verify(t, 0, "--rescore", "40", out); v.Rescored.Equal != 40 {
		t.Errorf("on the same set: %+v", v.Rescored)
	}
	for path, err := range outdir.ListOutputs(t.Context(), out) {
		must(t, err)
		c, err := shard.Inspect(t.Context(), path)
		must(t, err)
		if c.Metadata.Set != "sse2" {
			t.Errorf("%s names the set %q", path, c.Metadata.Set)
		}
	}
	t.Setenv("SURPRISAL_CPU_SET", "")
	v := verify(t, 0, "--rescore", "40", out)
	if v.Rescored.Equal+v.Rescored.Close != 40 {
		t.Errorf("on another set: %+v", v.Rescored)
	}
	t.Setenv("SURPRISAL_CPU_SET", "altivec")
	dispatcher(t, "run", "--engine", "cpu", "--model", demoModel, "--out", filepath.Join(dir, "none"), in).want(t, 2)
}
