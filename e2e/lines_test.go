package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// TestJSONLines scores documents of the demo corpus as JSON lines, plain and
// compressed, cut and whole, and gets the bits that parquet gives.
func TestJSONLines(t *testing.T) {
	t.Parallel()
	type doc struct {
		ID   string `parquet:"id" json:"id"`
		Text string `parquet:"text" json:"-"`
		Meta struct {
			Text string `json:"text"`
		} `parquet:"-" json:"meta"`
	}
	docs, err := parquet.ReadFile[doc](filepath.Join(demoCorpus, "000_00000.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	docs = docs[:80]
	var plain bytes.Buffer
	for _, d := range docs {
		d.Meta.Text = d.Text
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		plain.Write(append(b, '\n'))
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	if _, err := z.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	write("in/000_00000.jsonl", plain.Bytes())
	write("gz/000_00000.jsonl.gz", gz.Bytes())
	base := demoScores(t, "000_00000.parquet")[:len(docs)]
	for in, flags := range map[string][]string{"in": {"--job-tokens", "8000", "--workers", "2"}, "gz": nil} {
		out := filepath.Join(dir, "out-"+in)
		args := append([]string{"run", "--model", demoModel, "--out", out, "--text-column", "meta.text"}, flags...)
		dispatcher(t, append(args, filepath.Join(dir, in))...).want(t, 0)
		got := scores(t, out)
		for i := range got {
			got[i].file = base[i].file
		}
		sameScores(t, base, got)
		dispatcher(t, "verify", "--rescore", "5", out).want(t, 0)
		runProgram(t, nil, "checkrun", out).want(t, 0)
	}

	// After scoring: the same lines, documents coloured, one document.
	kept := filepath.Join(dir, "kept")
	dispatcher(t, "filter", filepath.Join(dir, "out-gz"), "--where", "perplexity < p60", "--to", kept).want(t, 0)
	f, err := os.Open(filepath.Join(kept, "000_00000.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	some, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for line := range bytes.Lines(some) {
		i := bytes.Index(plain.Bytes()[at:], line)
		if i < 0 {
			t.Fatalf("a line that is not the input's, or not in order: %.100q", line)
		}
		at += i + len(line)
	}
	if n, all := bytes.Count(some, []byte("\n")), len(docs); n < all/2 || n > all*2/3 {
		t.Errorf("%d of %d lines are below the 60th percentile", n, all)
	}
	dispatcher(t, "report", filepath.Join(dir, "out-in")).want(t, 0)
	page, err := os.ReadFile(filepath.Join(dir, "out-in", "report.html"))
	if err != nil || bytes.Contains(page, []byte("Not coloured")) || bytes.Count(page, []byte(`<i class="n`)) < 1000 {
		t.Errorf("a report of %d bytes without colours: %v", len(page), err)
	}
	r := dispatcher(t, "inspect", filepath.Join(dir, "out-in"), "--row", "000_00000.jsonl:37").want(t, 0)
	says(t, r.stdout, strings.Fields(docs[37].Text)[0], "perplexity")

	// Bad lines cost themselves; a torn file costs itself.
	bad := append([]byte("{\"meta\": {\"text\": \"good\"}, \"id\": \"a\"}\n{\"meta\": \n{\"meta\": {\"text\": 7}}\n"),
		plain.Bytes()[:200]...)
	write("bad/bad.jsonl", bad)
	write("bad/torn.jsonl.gz", gz.Bytes()[:gz.Len()/2])
	r = dispatcher(t, "run", "--json", "--model", demoModel, "--out", filepath.Join(dir, "out-bad"), "--text-column",
		"meta.text", filepath.Join(dir, "bad")).want(t, 1)
	sum := parseSummary(t, r)
	if sum.Documents != 4 || sum.FailedRows != 3 || len(sum.FailedFiles) != 1 ||
		sum.FailedFiles[0].File != "torn.jsonl.gz" ||
		strings.Contains(r.stdout+r.stderr, "parquet") {
		t.Errorf("%+v", sum)
	}

	// Questions and answers.
	var lines bytes.Buffer
	for _, p := range expectedPairs(t) {
		b, err := json.Marshal(map[string]any{"q": map[string]string{"question": p.Context}, "answer": p.Target})
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(b, '\n'))
	}
	lines.WriteString("{\"answer\": \"x\"}\n{\"q\": {\"question\": \"x\"}}\n{\"q\": {\"question\": \"\xff\"}}\n")
	in := write("pairs.jsonl", lines.Bytes())
	out := filepath.Join(dir, "pairs")
	dispatcher(t, "run", "--model", demoModel, "--out", out, "--context-column", "q.question", "--target-column",
		"answer", "--job-tokens", "500", in).want(t, 0)
	checkPairs(t, out, "null context", "null target", "not UTF-8")
	merged := filepath.Join(dir, "pairs-merged")
	dispatcher(t, "export", out, "--as", "merged", "--to", "file://"+merged).want(t, 0)
	b, err := os.ReadFile(filepath.Join(merged, "pairs.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for line := range bytes.Lines(b) {
		var got struct {
			Answer  string
			Row     int
			Context int   `json:"n_context_tokens"`
			Greedy  *bool `json:"greedy"`
			Error   *string
		}
		if i < len(expectedPairs(t)) {
			if err := json.Unmarshal(line, &got); err != nil || got.Row != i ||
				(got.Greedy == nil) != (got.Error != nil) || got.Answer != expectedPairs(t)[i].Target {
				t.Errorf("line %d: %+v (%v) of %s", i, got, err, line)
			}
		}
		i++
	}
	dispatcher(t, "report", out).want(t, 0)
	if page, err = os.ReadFile(filepath.Join(out, "report.html")); err != nil || bytes.Contains(page,
		[]byte("Not coloured")) {
		t.Errorf("a report of pairs without colours: %v", err)
	}
}
