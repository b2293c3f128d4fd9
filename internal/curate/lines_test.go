package curate

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"surprisal/internal/testkit/fakescores"
)

func pythonSays(t *testing.T, args ...string) string {
	t.Helper()
	b, err := exec.Command(python(t), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", args, b)
	}
	return strings.TrimSpace(string(b))
}

// linesCorpus is the demo corpus as JSON lines, with scores; text, dump and
// language are fields of an object.
func linesCorpus(t *testing.T, suffix string, o fakescores.Options) *Corpus {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "lines")
	pythonSays(t, "testdata/lines.py", "make", demo, dir, suffix)
	o.Text = "meta.text"
	return scored(t, dir, o)
}

func inputsOf(c *Corpus) string { return filepath.Dir(c.Files[0].Input.Path) }

// TestLinesAreKept: of JSON lines the same rows are kept as of parquet, byte for
// byte, in each compression, by fields of objects; DuckDB reads them back.
func TestLinesAreKept(t *testing.T) {
	twin := scored(t, demo, fakescores.Options{})
	for _, suffix := range []string{".jsonl", ".ndjson.gz", ".jsonl.zst"} {
		t.Run(suffix, func(t *testing.T) {
			c := linesCorpus(t, suffix, fakescores.Options{})
			args := []string{"testdata/lines.py", "kept", inputsOf(c)}
			var counts []string
			for where, fields := range map[string][2][]string{
				"perplexity < p60":                              {{"dump"}, {"meta.dump"}},
				"dump == 'demo-noise' or n_tokens > p90":        {nil, nil},
				"language == 'en' and token_count >= 100":       {nil, nil},
				"language_score > p20 and perplexity < 40":      {{"language"}, {"meta.language"}},
				"error is not null":                             {nil, nil},
				"language in ('es', 'xx') or perplexity < -1":   {nil, nil},
				"bits_per_byte between p5 and p60 or text < ''": {nil, nil},
			} {
				dir := t.TempDir()
				a := FilterOptions{Where: where, By: fields[0], To: filepath.Join(dir, "parquet")}
				b := FilterOptions{Where: nested.Replace(where), By: fields[1], To: filepath.Join(dir, "lines")}
				want, err := twin.Filter(t.Context(), a)
				if err != nil {
					t.Fatal(where, err)
				}
				got, err := c.Filter(t.Context(), b)
				if err != nil {
					t.Fatal(b.Where, err)
				}
				if got.Total.Kept != want.Total.Kept || got.Total.KeptTokens != want.Total.KeptTokens ||
					len(got.Groups) != len(want.Groups) {
					t.Errorf("%s: kept %+v, of parquet %+v", b.Where, got.Total, want.Total)
				}
				args, counts = append(args, b.To, a.To), append(counts, fmt.Sprint(want.Total.Kept))
				if _, err := c.Filter(t.Context(), b); err != nil {
					t.Errorf("again: %v", err)
				}
			}
			if n := strings.Fields(pythonSays(t, args...)); !slices.Equal(n, counts) {
				t.Errorf("%s lines are there, want %s", n, counts)
			}
		})
	}
}

var nested = strings.NewReplacer("dump ", "meta.dump ", "language ", "meta.language ", "text ", "meta.text ")

// TestLinesGetScores: pyarrow and DuckDB read from lines what they read from
// parquet, in each layout.
func TestLinesGetScores(t *testing.T) {
	const own = "row,n_tokens,n_bytes,sum_nll,perplexity,bits_per_byte,n_top1,truncated,error"
	for _, perToken := range []bool{false, true} {
		o := fakescores.Options{PerToken: perToken, Keep: []string{"id"}}
		twin, c := scored(t, demo, o), linesCorpus(t, ".jsonl.gz", o)
		dir := t.TempDir()
		names := own
		if perToken {
			names += ",token_ids,token_nll"
		}
		a, b := filepath.Join(dir, "merged"), filepath.Join(dir, "lines")
		for to, c := range map[string]*Corpus{a: twin, b: c} {
			if _, err := c.Export(t.Context(), ExportOptions{As: "merged", To: to}); err != nil {
				t.Fatal(err)
			}
		}
		pythonSays(t, "testdata/lines.py", "scored", b, a, names)
		a, b = filepath.Join(dir, "kept"), filepath.Join(dir, "kept-lines")
		for to, c := range map[string]*Corpus{a: twin, b: c} {
			if _, err := c.Filter(t.Context(), FilterOptions{Where: "perplexity < p40", To: to,
				WithScores: true}); err != nil {
				t.Fatal(err)
			}
		}
		pythonSays(t, "testdata/lines.py", "scored", b, a, names)
		a, b = filepath.Join(dir, "buckets"), filepath.Join(dir, "buckets-lines")
		for to, c := range map[string]*Corpus{a: twin, b: c} {
			if _, err := c.Bucket(t.Context(), BucketOptions{As: "column", To: to}); err != nil {
				t.Fatal(err)
			}
		}
		pythonSays(t, "testdata/lines.py", "scored", b, a, "bucket")
		a, b = filepath.Join(dir, "folders"), filepath.Join(dir, "folders-lines")
		for to, c := range map[string]*Corpus{a: twin, b: c} {
			if _, err := c.Bucket(t.Context(), BucketOptions{As: "folders", To: to}); err != nil {
				t.Fatal(err)
			}
		}
		args := []string{"testdata/lines.py", "kept", inputsOf(c)}
		for _, name := range append(slices.Clone(Buckets), unscored) {
			args = append(args, filepath.Join(b, name), filepath.Join(a, name))
		}
		pythonSays(t, args...)
		// Sidecars hold the same rows; dolma's attributes are named as the documents.
		for _, as := range []string{"sidecar", "dolma"} {
			if _, err := c.Export(t.Context(), ExportOptions{As: as, To: filepath.Join(dir, as)}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := twin.Export(t.Context(), ExportOptions{As: "sidecar",
			To: filepath.Join(dir, "twin")}); err != nil {
			t.Fatal(err)
		}
		pythonSays(t, "-c", `import sys, glob, os, pyarrow.parquet as pq
for p in glob.glob(sys.argv[1] + "/*.parquet"):
    q = sys.argv[2] + "/" + os.path.basename(p).replace(".parquet", ".jsonl.gz.parquet")
    assert pq.read_table(p).equals(pq.read_table(q)), p`, filepath.Join(dir, "twin"), filepath.Join(dir, "sidecar"))
		pythonSays(t, "-c", `import sys, glob, os, gzip, json
for p in glob.glob(sys.argv[1] + "/*"):
    docs = [json.loads(x) for x in gzip.open(p, "rt", encoding="utf-8") if x.strip()]
    attrs = [json.loads(x) for x in gzip.open(sys.argv[2] + "/" + os.path.basename(p), "rt", encoding="utf-8")]
    assert [d["id"] for d in docs] == [a["id"] for a in attrs], p
    for d, a in zip(docs, attrs):
        assert all(s[0][1] == len(d["meta"]["text"]) for s in a["attributes"].values() if s), p`,
			inputsOf(c), filepath.Join(dir, "dolma"))
	}
}

// TestBadLines: what is wrong with lines costs no other line; such lines are kept
// as they are where an expression asks for them.
func TestBadLines(t *testing.T) {
	if testing.Short() {
		t.Skip("a line of 65 MiB, many times")
	}
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := `{"text": "` + strings.Repeat("x", 65<<20) + `"}`
	write("a.jsonl",
		"\xef\xbb\xbf{\"text\": \"good\", \"n\": 1, \"lang\": \"en\"}\n\n{\"text\": \n[1]\n"+
			"{\"text\": \"more\", \"n\": 2.5, \"lang\": null}\r\n{}\n{\"text\": \"\xff\"}\n"+
			long+"\n{ \"text\" : \"last\" , \"n\": \"x\", \"lang\": 7 }  ")
	write("b.jsonl", "{\"text\": \"no n here\"}\n{\"text\": \"nor here\", \"n\": null}\n")
	c := scored(t, dir, fakescores.Options{JobTokens: 3})
	kept := func(o FilterOptions) string {
		t.Helper()
		o.To = filepath.Join(t.TempDir(), "to")
		if _, err := c.Filter(t.Context(), o); err != nil {
			t.Fatal(o.Where, err)
		}
		a, err := os.ReadFile(filepath.Join(o.To, "a.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(o.To, "b.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		return string(a) + "|" + string(b)
	}
	const first, second, last = "{\"text\": \"good\", \"n\": 1, \"lang\": \"en\"}\n",
		"{\"text\": \"more\", \"n\": 2.5, \"lang\": null}\r\n", "{ \"text\" : \"last\" , \"n\": \"x\", \"lang\": 7 }  "
	for where, want := range map[string]string{
		"n >= 1":                             first + second + "|",
		"n == 2.5":                           second + "|",
		"lang == 'en'":                       first + "|",
		"lang == '7'":                        last + "|",
		"error is not null and text is null": "{\"text\": \n[1]\n{}\n{\"text\": \"\xff\"}\n" + long + "\n|",
		"n is null and text is not null": last +
			"|{\"text\": \"no n here\"}\n{\"text\": \"nor here\", \"n\": null}\n",
	} {
		if got := kept(FilterOptions{Where: where}); got != want {
			t.Errorf("%s: %.300q, want %.300q", where, got, want)
		}
	}
	got := kept(FilterOptions{Where: "n_tokens > 0 or text is null", WithScores: true})
	for _, want := range []string{"{\"text\": \n[1]\n", `,"truncated":false,"error":null}` + "\r\n",
		"{\"row\":4,\"n_tokens\":0,", `"lang": 7 ,"row":7,`, "}  |", "\"\xff\"}\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %.1000q", want, got)
		}
	}
	if _, err := c.Filter(t.Context(), FilterOptions{Where: "nope < 3", To: t.TempDir()}); !isUsage(err) ||
		!strings.Contains(err.Error(), `"lang"`) {
		t.Errorf("no such field: %v", err)
	}
	write("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\", \"row\": 3}\n")
	c = scored(t, dir, fakescores.Options{})
	if _, err := c.Export(t.Context(), ExportOptions{As: "merged", To: filepath.Join(t.TempDir(), "to")}); err == nil ||
		!strings.Contains(err.Error(), `field "row" of its own`) {
		t.Errorf("a field of the scores' name: %v", err)
	}
}

// TestFieldsOfStructs: what is inside a struct of a parquet file groups and
// compares as a column does.
func TestFieldsOfStructs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "structs")
	pythonSays(t, "-c", `import sys, os, pyarrow as pa, pyarrow.parquet as pq
os.mkdir(sys.argv[2])
for p in "000_00000", "001_00000":
    t = pq.read_table(f"{sys.argv[1]}/{p}.parquet")
    values = zip(t.column("dump").to_pylist(), t.column("token_count").to_pylist())
    meta = [None if i % 10 == 9 else {"dump": d, "in": {"n": n}} for i, (d, n) in enumerate(values)]
    t = t.drop_columns(["dump"]).append_column("meta", pa.array(meta))
    pq.write_table(t, f"{sys.argv[2]}/{p}.parquet", row_group_size=50)`, demo, dir)
	c := scored(t, dir, fakescores.Options{})
	twin := scored(t, demo, fakescores.Options{})
	count := func(c *Corpus, where, by string) string {
		t.Helper()
		r, err := c.Filter(t.Context(), FilterOptions{Where: where, By: []string{by}, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		var s []string
		for i := range r.Groups {
			s = append(s, fmt.Sprint(r.Groups[i].Name(), " ", r.Groups[i].Rows, " ", r.Groups[i].Kept))
		}
		return strings.Join(s, ", ")
	}
	nulls := int64(0)
	for _, f := range c.Files {
		nulls += f.Rows / 10
	}
	got := count(c, "meta.in.n >= 100 or meta.in.n is null", "meta.dump")
	if !strings.Contains(got, fmt.Sprintf("(null) %d %d", nulls, nulls)) {
		t.Errorf("nulls of structs: %s", got)
	}
	all, err := c.Filter(t.Context(), FilterOptions{Where: "meta.in.n >= 100", DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	want, err := twin.Filter(t.Context(), FilterOptions{Where: "token_count >= 100", DryRun: true})
	if err != nil || all.Total.Kept >= want.Total.Kept || all.Total.Kept < want.Total.Kept*8/10 {
		t.Errorf("kept %d by the field, %d by the column (%v)", all.Total.Kept, want.Total.Kept, err)
	}
	for _, name := range []string{"meta", "meta.nope", "meta.in", "nope.x"} {
		if _, err := c.Filter(t.Context(), FilterOptions{Where: name + " is null", DryRun: true}); !isUsage(err) ||
			!strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
