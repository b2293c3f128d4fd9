package e2e

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestAfterScoring: what scores of the demo corpus are good for, with the real programs.
// Tokens that report and inspect score again add up to the scores in OUT.
func TestAfterScoring(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	dispatcher(t, "run", "--model", demoModel, "--out", out, "--job-tokens", "20000",
		demoCorpus+"/001_00000.parquet").want(t, 0)
	rows := scores(t, out)

	var kept struct {
		Total struct {
			Rows int64 `json:"rows"`
			Kept int64 `json:"kept_rows"`
		} `json:"total"`
	}
	to := filepath.Join(dir, "kept")
	r := dispatcher(t, "filter", out, "--where", "perplexity < p60", "--by", "dump", "--to", to, "--json").want(t, 0)
	if err := json.Unmarshal([]byte(r.stdout), &kept); err != nil || kept.Total.Rows != int64(len(rows)) ||
		kept.Total.Kept != 81 {
		t.Errorf("filter: %+v %v", kept, err)
	}
	dispatcher(t, "bucket", out, "--as", "folders", "--by", "language", "--to", filepath.Join(dir, "buckets")).want(t,
		0)
	for _, as := range []string{"merged", "sidecar", "dolma"} {
		dispatcher(t, "export", out, "--as", as, "--to", filepath.Join(dir, as)).want(t, 0)
	}

	dispatcher(t, "report", out, "--plots", filepath.Join(dir, "plots")).want(t, 0)
	page, err := os.ReadFile(filepath.Join(out, "report.html"))
	if err != nil || strings.Contains(string(page), "Not coloured") || strings.Count(string(page),
		`<i class="n`) < 1000 {
		t.Errorf("a report of %d bytes without colours: %v", len(page), err)
	}
	dispatcher(t, "verify", out).want(t, 0) // a report is no foreign thing

	for _, i := range []int{0, 37, len(rows) - 1} {
		want := rows[i]
		var doc struct {
			SumNLL float64 `json:"sum_nll"`
			Tokens []struct {
				NLL *float64 `json:"nll"`
			} `json:"tokens"`
		}
		r := dispatcher(t, "inspect", out, "--row", want.file+".parquet:"+strconv.FormatInt(want.Row, 10),
			"--json").want(t, 0)
		if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, tok := range doc.Tokens {
			if tok.NLL != nil {
				sum += *tok.NLL
			}
		}
		// token_nll is float32, sum_nll was added up in float64 before.
		if doc.SumNLL != want.SumNLL || math.Abs(sum-want.SumNLL) > 1e-6*want.SumNLL ||
			int64(len(doc.Tokens)) != want.Tokens+1 {
			t.Errorf("row %d: tokens add up to %v of %v", i, sum, want.SumNLL)
		}
	}
	r = dispatcher(t, "inspect", "--model", demoModel, "--text", "To be, or not to be").want(t, 0)
	says(t, r.stdout, `" be"`, "perplexity")
	if strings.Contains(r.stdout, "\x1b") {
		t.Error("colours where there is no terminal")
	}

	// Mistakes: one line (and the place in an expression), code 2, nothing written.
	gone := filepath.Join(dir, "gone")
	for name, c := range map[string]struct {
		args  []string
		words []string
	}{
		"no manifest": {[]string{"filter", demoCorpus, "--where", "perplexity < 3", "--to", gone},
			[]string{"_manifest.json"}},
		"no such folder": {[]string{"report", gone}, []string{"_manifest.json"}},
		"no column": {[]string{"filter", out, "--where", "colour < 3", "--to", gone},
			[]string{"colour", "perplexity", "dump"}},
		"no --by column": {[]string{"bucket", out, "--by", "colour", "--to", gone}, []string{"colour"}},
		"bad expression": {[]string{"filter", out, "--where", "perplexity < ", "--to", gone},
			[]string{"character 14", "\nperplexity < \n             ^"}},
		"no expression": {[]string{"filter", out, "--to", gone}, []string{"--where"}},
		"no DEST":       {[]string{"export", out}, []string{"--to"}},
		"DEST in OUT": {[]string{"filter", out, "--where", "perplexity < 3", "--to", filepath.Join(out, "x")},
			[]string{"inside"}},
		"DEST is OUT": {[]string{"export", out, "--to", out}, []string{"inside"}},
		"DEST is full": {[]string{"filter", out, "--where", "perplexity < 3", "--to", to},
			[]string{"another command"}},
		"no such layout": {[]string{"export", out, "--as", "zip", "--to", gone}, []string{"zip", "dolma"}},
		"no such file":   {[]string{"inspect", out, "--row", "x.parquet:3"}, []string{"x.parquet"}},
		"no such row":    {[]string{"inspect", out, "--row", "001_00000.parquet:9999"}, []string{"9999"}},
		"no row":         {[]string{"inspect", out, "--row", "001_00000.parquet"}, []string{"FILE:N"}},
		"nothing":        {[]string{"inspect"}, []string{"--row", "--text"}},
	} {
		r := dispatcher(t, c.args...).want(t, 2)
		says(t, r.stderr, c.words...)
		want := 1
		if strings.HasSuffix(r.stderr, "^\n") {
			want = 3
		}
		if lines := strings.Count(strings.TrimSpace(r.stderr), "\n") + 1; lines != want {
			t.Errorf("%s: %d lines:\n%s", name, lines, r.stderr)
		}
	}
	if _, err := os.Stat(gone); err == nil {
		t.Error("wrong usage left a folder behind")
	}
	// A job's file is gone.
	jobs, err := filepath.Glob(filepath.Join(out, "001_00000", "rows-*.parquet"))
	if err != nil || len(jobs) < 2 {
		t.Fatal(jobs, err)
	}
	if err := os.Remove(jobs[0]); err != nil {
		t.Fatal(err)
	}
	r = dispatcher(t, "report", out).want(t, 2)
	says(t, r.stderr, "rows have no score", "--partial")
	dispatcher(t, "filter", out, "--partial", "--where", "perplexity < p50", "--to", gone).want(t, 0)
}
