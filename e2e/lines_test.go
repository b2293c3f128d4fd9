package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// TestJSONLines scores the demo corpus as JSON lines, plain and compressed, cut
// and whole, and gets the bits that parquet gives.
func TestJSONLines(t *testing.T) {
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
	base := scoreDemo(t, filepath.Join(dir, "base"))
	for in, flags := range map[string][]string{"in": {"--job-tokens", "20000", "--workers", "2"}, "gz": nil} {
		out := filepath.Join(dir, "out-"+in)
		args := append([]string{"run", "--model", demoModel, "--out", out, "--text-column", "meta.text"}, flags...)
		dispatcher(t, append(args, filepath.Join(dir, in))...).want(t, 0)
		got := scores(t, out)
		for i := range got {
			got[i].file = base[i].file
		}
		sameScores(t, base, got)
		dispatcher(t, "verify", "--rescore", "5", out).want(t, 0)
	}

	// Bad lines cost themselves; a torn file costs itself.
	bad := append([]byte("{\"meta\": {\"text\": \"good\"}, \"id\": \"a\"}\n{\"meta\": \n{\"meta\": {\"text\": 7}}\n"), plain.Bytes()[:200]...)
	write("bad/bad.jsonl", bad)
	write("bad/torn.jsonl.gz", gz.Bytes()[:gz.Len()/2])
	r := dispatcher(t, "run", "--json", "--model", demoModel, "--out", filepath.Join(dir, "out-bad"), "--text-column", "meta.text", filepath.Join(dir, "bad")).want(t, 1)
	sum := parseSummary(t, r)
	if sum.Documents != 4 || sum.FailedRows != 3 || len(sum.FailedFiles) != 1 || sum.FailedFiles[0].File != "torn.jsonl.gz" {
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
	dispatcher(t, "run", "--model", demoModel, "--out", out, "--context-column", "q.question", "--target-column", "answer", "--job-tokens", "500", in).want(t, 0)
	checkPairs(t, out, "null context", "null target", "not UTF-8")
}
