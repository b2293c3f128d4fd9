package report

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"surprisal/internal/curate"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/testkit/fakescores"
)

// attacks are texts that would run if anything were not escaped.
var attacks = []string{
	`<script>window.pwned=true</script>`, `"><img src=x onerror="window.pwned=true">`,
	`</script><script>window.pwned=true</script>`,
	`<svg onload=window.pwned=true>`, `{{.Title}}`, `</style><script>window.pwned=true</script>`, "<!--",
	`]]><script>window.pwned=true</script>`,
	"javascript:window.pwned=true", "\x00\u202e\u2028", `</text><script>window.pwned=true</script>`,
	`' onmouseover='window.pwned=true`,
}

func hostile() []string {
	var texts []string
	for i := range 300 {
		texts = append(texts, strings.Repeat(attacks[i%len(attacks)]+" ", 1+i%7*3))
	}
	return texts
}

// hostileCorpus has attacks as texts, and by --by text as values.
func hostileCorpus(t *testing.T) *curate.Corpus {
	t.Helper()
	dir := t.TempDir()
	d, err := outdir.OpenDest(t.Context(), filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.WriteTexts(t.Context(), `<script>window.pwned=true<.parquet`, hostile()); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if _, err := fakescores.Write(t.Context(), []string{filepath.Join(dir, "in")}, out,
		fakescores.Options{JobTokens: 2000, PerToken: true}); err != nil {
		t.Fatal(err)
	}
	c, err := curate.Open(t.Context(), out, false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func hostileReport(t *testing.T) string {
	t.Helper()
	c := hostileCorpus(t)
	r, err := Make(t.Context(), c, Options{By: []string{"text"}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := outdir.OpenDest(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	path := filepath.Join(t.TempDir(), "report.html")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.HTML(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestHostileTexts: no text reaches the page as anything but text.
func TestHostileTexts(t *testing.T) {
	b, err := os.ReadFile(hostileReport(t))
	if err != nil {
		t.Fatal(err)
	}
	s := string(b)
	if n := strings.Count(s, "<script"); n != 2 {
		t.Errorf("%d scripts", n)
	}
	for _, bad := range []string{"<img", "onerror=\"", "<svg onload", "http-equiv=\"refresh", "<!--"} {
		if strings.Contains(s, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	if strings.Count(s, "window.pwned") < 10 {
		t.Error("the texts are not shown")
	}
	for _, link := range []string{"src=\"http", "href=\"http", "url(", "@import", "fetch("} {
		if strings.Contains(s, link) {
			t.Errorf("the page has %s", link)
		}
	}
}

// TestCosts: energy and GPU time are told where they are known, and nowhere else.
func TestCosts(t *testing.T) {
	for _, known := range []bool{true, false} {
		c := hostileCorpus(t)
		if known {
			c.Manifest.Costs = []score.Cost{
				{Queue: "a", Jobs: 2, Tokens: 1_000_000, Joules: 900, GPUTokens: 2_000_000, GPUSeconds: 8.64},
				{Queue: "b", Jobs: 1, Tokens: 1_000_000, Joules: 700, GPUTokens: 2_000_000, GPUSeconds: 8.64},
			}
			at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			for i := range 60 {
				c.Manifest.Costs[0].Spend(at.Add(time.Duration(i)*time.Minute), 0, 0)
				c.Manifest.Costs[0].Steps[i].Joules = 42_000
			}
		}
		r, err := Make(t.Context(), c, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := r.HTML(&b); err != nil {
			t.Fatal(err)
		}
		for _, words := range []string{"Power of the GPUs over time", "minutes since the first file",
			"800 J per million tokens", "0.05 GPU-days per billion tokens"} {
			if strings.Contains(b.String(), words) != known {
				t.Errorf("known: %v, the page says %q: %v", known, words, !known)
			}
		}
		if (r.Totals.JoulesPerMillionTokens != nil) != known || (r.Totals.GPUDaysPerBillionTokens != nil) != known {
			t.Errorf("known: %v, %+v", known, r.Totals)
		}
	}
}

func TestNumbers(t *testing.T) {
	c := hostileCorpus(t)
	r, err := Make(t.Context(), c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var want shard.Totals
	for _, f := range c.Files {
		for _, s := range f.Scores {
			m, err := shard.Inspect(t.Context(), s.Path)
			if err != nil {
				t.Fatal(err)
			}
			want.Add(m.Totals)
		}
	}
	got := r.Totals
	if got.Documents != want.Documents || got.Tokens != want.Tokens || got.Failed != want.Failed || want.Failed == 0 {
		t.Errorf("totals %+v, want %+v", got, want)
	}
	last := r.Steps[100]
	if last.Rows != want.Documents-want.Failed || last.Tokens != want.Tokens {
		t.Errorf("p100 keeps %+v of %+v", last, want)
	}
	// A threshold keeps what filter keeps.
	for _, p := range []int{0, 30, 60, 95} {
		f, err := c.Filter(t.Context(), curate.FilterOptions{Where: "perplexity < p" + number(float64(p)),
			DryRun: true})
		if err != nil || f.Total.Kept != r.Steps[p].Rows || f.Total.KeptTokens != r.Steps[p].Tokens {
			t.Errorf("p%d: the report keeps %+v, the filter %+v (%v)", p, r.Steps[p], f, err)
		}
	}
	if len(r.Reasons) != 1 || r.Reasons[0].N != want.Failed {
		t.Errorf("reasons %+v", r.Reasons)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

func TestPlots(t *testing.T) {
	if testing.Short() {
		t.Skip("draws for seconds, in one goroutine")
	}
	r, err := Make(t.Context(), hostileCorpus(t), Options{By: []string{"text"}})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = r.Plots(func(name string, content func(io.Writer) error) error {
		n++
		var b bytes.Buffer
		if err := content(&b); err != nil {
			return err
		}
		if strings.HasSuffix(name, ".png") {
			img, err := png.Decode(&b)
			if err == nil && img.Bounds().Dx() != plotWidth*pngScale {
				t.Errorf("%s is %v", name, img.Bounds())
			}
			return err
		}
		if strings.Contains(b.String(), "<script") || !strings.Contains(b.String(), "<title") {
			t.Errorf("%s: %.300s", name, b.String())
		}
		return nil
	})
	if err != nil || n < 10 {
		t.Errorf("%d files, %v", n, err)
	}
}

// TestWithoutAnyScore: a run whose every row failed has a report too.
func TestWithoutAnyScore(t *testing.T) {
	dir := t.TempDir()
	d, err := outdir.OpenDest(t.Context(), filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.WriteTexts(t.Context(), "x.parquet", []string{""}); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if _, err := fakescores.Write(context.Background(), []string{filepath.Join(dir, "in")}, out,
		fakescores.Options{}); err != nil {
		t.Fatal(err)
	}
	c, err := curate.Open(t.Context(), out, false)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Make(t.Context(), c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.HTML(io.Discard); err != nil {
		t.Error(err)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	if err := r.Plots(func(_ string, content func(io.Writer) error) error { return content(io.Discard) }); err != nil {
		t.Error(err)
	}
}

func TestPieces(t *testing.T) {
	p, err := parsePieces([]byte(`{"model":{"vocab":{"▁a":1,"<0xC3>":2,"<0xBC>":3,"<s>":0,"b":4}},` +
		`"decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Strip"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	var s strings.Builder
	for _, tok := range p.Tokens([]int32{0, 1, 2, 3, 4, 1, 99}, []float32{1, 2, 3, 4, 5, 6}) {
		if !tok.Given {
			s.WriteString(tok.Text)
		}
	}
	if s.String() != "aüb a<99>" {
		t.Errorf("%q", s.String())
	}
	p, err = parsePieces([]byte(`{"model":{"vocab":{"Ġa":1,"Ã":2,"¼":3,"Ċ":4}},"decoder":{"type":"ByteLevel"}}`))
	if err != nil {
		t.Fatal(err)
	}
	s.Reset()
	for _, tok := range p.Tokens([]int32{1, 1, 2, 3, 4}, nil)[1:] {
		s.WriteString(tok.Text)
	}
	if s.String() != " aü\n" {
		t.Errorf("%q", s.String())
	}
}

func FuzzPieces(f *testing.F) {
	f.Add([]byte(`{"model":{"vocab":{"▁a":1}},"decoder":{"type":"ByteLevel"}}`), []byte{1, 2, 200})
	f.Fuzz(func(t *testing.T, b, raw []byte) {
		p, err := parsePieces(b)
		if err != nil {
			return
		}
		ids, nll := []int32{}, []float32{}
		for _, x := range raw {
			ids, nll = append(ids, int32(x)), append(nll, float32(x))
		}
		p.Tokens(ids, nll)
	})
}
