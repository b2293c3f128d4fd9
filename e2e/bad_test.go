package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/score"
)

// badCorpus makes a folder of good files and bad ones.
func badCorpus(t *testing.T) string {
	t.Helper()
	in := filepath.Join(t.TempDir(), "in")
	writeParquet(t, filepath.Join(in, "good.parquet"), []textRow{{"a", ptr("hello world")}, {"b", ptr("fn main() {}")}},
		1)
	writeParquet(t, filepath.Join(in, "deep/er/good.parquet"), []textRow{{"c", ptr("hello world")}}, 1)
	writeParquet(t, filepath.Join(in, "no-rows.parquet"), []textRow{}, 1)
	writeParquet(t, filepath.Join(in, "rows.parquet"), []textRow{
		{"d", nil}, {"e", ptr("bad \xff\xfe utf-8")}, {"f", ptr("")}, {"g", ptr("nul \x00 inside")},
		{"h", ptr("a literal <s> here")},
	}, 2)
	whole, err := os.ReadFile(filepath.Join(demoCorpus, "000_00000.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"zero.parquet": nil, "truncated.parquet": whole[:len(whole)*2/3],
		"text.parquet": []byte("not parquet at all\n"),
	} {
		if err := os.WriteFile(filepath.Join(in, name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return in
}

func TestBadFilesAndRowsCostThemselvesAlone(t *testing.T) {
	in, out := badCorpus(t), filepath.Join(t.TempDir(), "out")
	r := dispatcher(t, "run", "--model", demoModel, "--out", out, in).want(t, 1)
	says(t, r.stdout, "zero.parquet", "truncated.parquet", "text.parquet", "failed files  3", "null text", "not UTF-8",
		"NOT complete")
	if strings.Contains(r.stdout, "no-rows.parquet") {
		t.Errorf("an empty file is not a failed one:\n%s", r.stdout)
	}
	if _, err := os.Stat(filepath.Join(out, score.SuccessName)); err == nil {
		t.Error("_SUCCESS is there, though files failed")
	}
	rows := scores(t, out)
	if len(rows) != 8 {
		t.Fatalf("%d rows, want 8", len(rows))
	}
	for i, want := range []struct {
		file, err     string
		tokens, bytes int64
	}{
		{file: "deep/er/good", bytes: 11, tokens: -1}, {file: "good", bytes: 11, tokens: -1},
		{file: "good", bytes: 12, tokens: -1},
		{file: "rows", err: "null text", bytes: -1}, {file: "rows", err: "not UTF-8", bytes: -1}, {file: "rows"},
		{file: "rows", bytes: 12, tokens: -1}, {file: "rows", bytes: 18, tokens: -1},
	} {
		r := rows[i]
		if r.file != want.file || r.Error != want.err || r.Bytes != want.bytes || (want.tokens < 0) != (r.Tokens > 0) {
			t.Errorf("row %d: %+v, want %+v", i, r, want)
		}
	}
	// Mended and grown, the same command takes in what is new.
	writeParquet(t, filepath.Join(in, "truncated.parquet"), []textRow{{"z", ptr("whole again")}}, 1)
	writeParquet(t, filepath.Join(in, "new.parquet"), []textRow{{"y", ptr("come later")}}, 1)
	for _, name := range []string{"zero.parquet", "text.parquet"} {
		if err := os.Remove(filepath.Join(in, name)); err != nil {
			t.Fatal(err)
		}
	}
	sum := parseSummary(t, dispatcher(t, "run", "--json", "--model", demoModel, "--out", out, in).want(t, 0))
	if !sum.Complete || sum.Documents != 10 || len(scores(t, out)) != 10 {
		t.Errorf("after mending: %+v", sum)
	}
}

func TestUsageErrorsAreOneLineAndCode2(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	writeParquet(t, filepath.Join(in, "a.parquet"), []textRow{{"a", ptr("x")}}, 1)
	out := filepath.Join(dir, "out")
	run := func(args ...string) []string {
		return append([]string{"run", "--model", demoModel, "--out", out}, args...)
	}
	for name, c := range map[string]struct {
		args  []string
		words []string
	}{
		"no inputs":       {run(), []string{"at least 1 arg"}},
		"unknown flag":    {run("--colour", in), []string{"--colour"}},
		"unknown command": {[]string{"scroe"}, []string{"scroe"}},
		"no model":        {[]string{"run", "--out", out, in}, []string{"--model"}},
		"missing model":   {[]string{"run", "--model", "nowhere", "--out", out, in}, []string{"nowhere"}},
		"no out":          {[]string{"run", "--model", demoModel, in}, []string{"--out"}},
		"missing input":   {run(filepath.Join(dir, "gone")), []string{"gone"}},
		"empty glob":      {run(filepath.Join(dir, "*.nothing")), []string{"*.nothing"}},
		"long mode":       {run("--long", "short", in), []string{"--long", "carry"}},
		"max length":      {run("--max-length", "-3", in), []string{"--max-length"}},
		"engine":          {run("--engine", "tpu", in), []string{"--engine"}},
		"no cuda":         {run("--engine", "cuda", in), []string{"cuda"}},
		"two columns":     {run("--text-column", "text", "--ids-column", "ids", in), []string{"exclude"}},
		"no tokenizer": {[]string{"run", "--model", "../testdata/goldens/kla", "--out", out, in},
			[]string{"--tokenizer", "--ids-column"}},
		"bad config file": {run("--config", filepath.Join(in, "a.parquet"), in), []string{"config file"}},
		"no server":       {[]string{"submit", "--model", demoModel, "--out", out, in}, []string{"--nats"}},
		"dead server":     {[]string{"list", "--nats", "nats://127.0.0.1:1"}, []string{"127.0.0.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := dispatcher(t, c.args...).want(t, 2)
			says(t, r.stderr, c.words...)
			if lines := strings.Count(strings.TrimSpace(r.stderr), "\n") + 1; lines != 1 ||
				strings.Contains(r.stderr, "goroutine") {
				t.Errorf("%d lines:\n%s", lines, r.stderr)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("wrong usage left an output folder behind")
			}
		})
	}
}

// A file whose columns are not those asked for fails by itself and says what it has.
func TestMissingColumnNamesThoseThere(t *testing.T) {
	dir := t.TempDir()
	writeParquet(t, filepath.Join(dir, "in", "a.parquet"), []textRow{{"a", ptr("x")}}, 1)
	r := dispatcher(t, "run", "--model", demoModel, "--out", filepath.Join(dir, "out"), "--text-column", "body",
		filepath.Join(dir, "in")).want(t, 1)
	says(t, r.stdout, "body", "id", "text")
}

// OUT belongs to one run: other options, another model or changed inputs are refused.
func TestOutIsNotMixed(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	writeParquet(t, filepath.Join(in, "a.parquet"), []textRow{{"a", ptr("x y z")}}, 1)
	base := []string{"run", "--model", demoModel, "--out", out}
	dispatcher(t, append(base, in)...).want(t, 0)
	says(t, dispatcher(t, append(base, "--long", "truncate", in)...).want(t, 2).stderr, "other options")
	says(t, dispatcher(t, append(base, demoCorpus)...).want(t, 2).stderr, "other inputs")
	says(t, dispatcher(t, "run", "--model", "../testdata/goldens/kla", "--ids-column", "x", "--out", out, in).want(t,
		2).stderr, "another model")
	writeParquet(t, filepath.Join(in, "a.parquet"), []textRow{{"a", ptr("x y z changed")}}, 1)
	says(t, dispatcher(t, append(base, in)...).want(t, 2).stderr, "a.parquet", "changed")
}
