package report

import (
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"surprisal/internal/curate"
	"surprisal/internal/score"
)

//go:embed page.html
var pageSource string

//go:embed page.js
var pageScript string

// shownTokens and shownText bound what is shown of a document.
const (
	shownTokens = 400
	shownText   = 1600
	shownRows   = 200 // of a table
)

// Report is a run's report, ready to be written.
type Report struct {
	Run     string        `json:"run"`
	Out     string        `json:"out"`
	Created string        `json:"created"`
	Totals  totals        `json:"totals"`
	Steps   []step        `json:"thresholds"`
	Reasons []reasonCount `json:"failed_rows,omitempty"`

	page  page
	plots []*plot
}

type totals struct {
	Documents  int64    `json:"documents"`
	Tokens     int64    `json:"tokens"`
	Failed     int64    `json:"failed_rows"`
	Missing    int64    `json:"missing_rows"`
	Perplexity *float64 `json:"perplexity"`
	Median     *float64 `json:"median_perplexity"`
	// Of the GPUs; absent where it is not known.
	JoulesPerMillionTokens  *float64 `json:"joules_per_million_tokens,omitempty"`
	GPUDaysPerBillionTokens *float64 `json:"gpu_days_per_billion_tokens,omitempty"`
}

type reasonCount struct {
	Name string `json:"reason"`
	N    int64  `json:"rows"`
}

// page has the values of page.html's slots.
type page struct {
	Title    string
	Subtitle string
	Style    markup
	Script   markup
	CSP      string
	Tiles    []tile
	Facts    [][2]string
	Views    []view
	Length   []markup
	Kept     markup
	Steps    []step
	Table    []stepRow
	Docs     []docGroup
	Why      string // the texts are not coloured
	Reasons  []reasonRow
	Partial  string
	Timeline []markup
	Legend   []int
	Made     string
}

type tile struct{ Value, Name string }

// view is the distributions by one column, or of all documents.
type view struct {
	Name    string
	Figures []markup
	Rows    [][]string // documents, tokens, perplexity of each value
	More    int
}

type stepRow struct{ P, PPL, Rows, Share, Tokens, TokenShare, Kept string }

type reasonRow struct{ Reason, Rows string }

type docGroup struct {
	Name, Note string
	Docs       []docView
}

type docView struct {
	Title, Facts string
	Tokens       []tokenView
	Text         string
	More         string
}

type tokenView struct {
	Class, Tip, Text string
}

// Make reads the corpus and draws everything.
func Make(ctx context.Context, c *curate.Corpus, o Options) (*Report, error) {
	if o.Documents == 0 {
		o.Documents = 4
	}
	d, err := gather(ctx, c, &o)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	r := &Report{Run: c.Manifest.Run, Out: c.Dir, Created: time.Now().UTC().Format(time.RFC3339), Steps: d.steps}
	r.Totals = totals{Documents: d.all.rows, Tokens: d.all.tokens, Failed: d.all.failed, Missing: c.MissingRows}
	r.Totals.Perplexity, r.Totals.Median = finite(d.all.perplexity()), finite(d.steps[50].PPL)
	for i := range r.Steps {
		if finite(r.Steps[i].PPL) == nil { // JSON has no infinity
			r.Steps[i].PPL = math.Copysign(math.MaxFloat64, r.Steps[i].PPL)
		}
		if finite(r.Steps[i].KeptPPL) == nil {
			r.Steps[i].KeptPPL = math.MaxFloat64
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(d.reasons)) {
		r.Reasons = append(r.Reasons, reasonCount{reason, d.reasons[reason]})
	}
	slices.SortStableFunc(r.Reasons, func(a, b reasonCount) int { return cmp.Compare(b.N, a.N) })
	r.layOut(c, d, o)
	return r, r.documents(ctx, c, d, o)
}

func finite(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

// figure adds a plot to the page and to the files.
func (r *Report) figure(p *plot) markup {
	r.plots = append(r.plots, p)
	return markup("<figcaption>" + html.EscapeString(p.title) + "</figcaption>" + p.svg(false))
}

// layOut fills in the page, but for the documents.
func (r *Report) layOut(c *curate.Corpus, d *data, o Options) {
	p := &r.page
	model := cmp.Or(c.Manifest.Model.Name, c.Manifest.Model.Dir)
	p.Title = "Scores of " + c.Manifest.Run
	p.Subtitle = fmt.Sprintf("%s documents of %s files, scored by %s",
		short(d.all.rows), count(int64(len(c.Files))), model)
	hash := sha256.Sum256([]byte(pageScript))
	p.Script = markup(pageScript)
	p.CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-" +
		base64.StdEncoding.EncodeToString(hash[:]) + "'"
	p.Style = markup(styles("", light) + "@media(prefers-color-scheme:dark){" + styles("", dark) + "}")
	p.Tiles = []tile{
		{short(d.all.rows), "documents"}, {short(d.all.tokens), "tokens"}, {number(d.steps[50].PPL),
			"median perplexity"},
		{number(d.all.perplexity()), "perplexity of all text"}, {count(d.all.failed), "failed rows"},
	}
	if c.MissingRows > 0 || len(c.FailedFiles) > 0 {
		p.Partial = fmt.Sprintf("The run is not complete: %s rows have no score yet and %d input files failed. "+
			"They are not in this report.", count(c.MissingRows), len(c.FailedFiles))
	}
	r.facts(c, d, model)
	r.distributions(d)
	r.thresholds(d)
	r.timeline(d, c.Manifest.Cost())
	for i := range levels {
		p.Legend = append(p.Legend, i)
	}
	p.Made = "Made " + r.Created + " by version " + o.Program
}

// shownInputs is how many input arguments are listed.
const shownInputs = 5

// facts lists what was scored, how, and at what cost.
func (r *Report) facts(c *curate.Corpus, d *data, model string) {
	m, p := c.Manifest, &r.page
	add := func(name, value string) { p.Facts = append(p.Facts, [2]string{name, value}) }
	add("Run", m.Run+", planned "+m.Created+" by version "+m.Program)
	add("Model", model)
	add("Model digest", m.Model.Digest)
	add("Tokenizer digest", m.Model.TokenizerDigest)
	add("Options", options(c))
	add("Options digest", m.ConfigDigest)
	for _, name := range slices.Sorted(maps.Keys(d.made)) {
		add("Scored by", name+": "+count(d.made[name])+" rows")
	}
	cost := m.Cost()
	if v, ok := cost.JoulesPerMillionTokens(); ok {
		add("Energy", number(v)+" J per million tokens, "+number(cost.Joules/3.6e6)+" kWh, by the GPUs' counters")
		r.Totals.JoulesPerMillionTokens = &v
	}
	if v, ok := cost.GPUDaysPerBillionTokens(); ok {
		add("GPU time", number(v)+" GPU-days per billion tokens, "+number(cost.GPUSeconds/3600)+" GPU-hours")
		r.Totals.GPUDaysPerBillionTokens = &v
	}
	for i, in := range m.Inputs {
		if i == shownInputs {
			add("Input", fmt.Sprintf("and %d more", len(m.Inputs)-i))
			break
		}
		add("Input", in)
	}
	add("Files", count(int64(len(c.Files)))+" with rows, "+count(int64(len(c.FailedFiles)))+" failed")
	add("Scores", c.Dir)
}

// distributions draws perplexity, bits per byte and length: of all documents, and by
// column.
func (r *Report) distributions(d *data) {
	p := &r.page
	p.Views = append(p.Views, view{Name: "all documents", Figures: []markup{
		r.figure(distribution("perplexity", "Perplexity", "perplexity of a document", d.all.ppl)),
		r.figure(distribution("bits", "Bits per byte", "bits per byte", d.all.bpb)),
	}})
	for i, column := range d.by {
		parts := d.parts[column]
		ppl := ridges(fmt.Sprintf("perplexity-by-%d", i), column, "Perplexity by "+column, "perplexity of a document",
			parts, func(p *part) *histogram { return p.ppl })
		bits := ridges(fmt.Sprintf("bits-by-%d", i), column, "Bits per byte by "+column, "bits per byte",
			parts, func(p *part) *histogram { return p.bpb })
		v := view{Name: "by " + column, Figures: []markup{r.figure(ppl), r.figure(bits)}}
		list := slices.SortedFunc(maps.Values(parts), func(a, b *part) int {
			return cmp.Or(cmp.Compare(b.rows, a.rows), cmp.Compare(a.name, b.name))
		})
		for k, q := range list {
			if k == shownRows {
				v.More = len(list) - k
				break
			}
			v.Rows = append(v.Rows, []string{
				clip(q.name, 80), count(q.rows), count(q.tokens), number(q.perplexity()), count(q.failed),
			})
		}
		p.Views = append(p.Views, v)
	}
	length := distribution("tokens", "Document length", "tokens of a document", d.all.tok)
	p.Length = []markup{r.figure(density(d)), r.figure(length)}
}

// thresholds shows how much each percentile keeps, and why rows have no score.
func (r *Report) thresholds(d *data) {
	p := &r.page
	p.Kept = r.figure(keptCurve(d))
	p.Steps = r.Steps
	last := d.steps[len(d.steps)-1]
	for i, s := range d.steps {
		if i%10 == 0 && i > 0 || i == 5 || i == 95 || i == 99 {
			p.Table = append(p.Table, stepRow{
				fmt.Sprintf("p%g", s.P), number(s.PPL), count(s.Rows), share(s.Rows, last.Rows),
				count(s.Tokens), share(s.Tokens, last.Tokens), number(s.KeptPPL),
			})
		}
	}
	for i, x := range r.Reasons {
		if i == shownRows {
			p.Reasons = append(p.Reasons, reasonRow{fmt.Sprintf("and %d other reasons", len(r.Reasons)-i), ""})
			break
		}
		p.Reasons = append(p.Reasons, reasonRow{x.Name, count(x.N)})
	}
}

// timeline draws throughput and power, where they are known.
func (r *Report) timeline(d *data, cost score.Cost) {
	for _, t := range []*plot{throughput(d), power(cost)} {
		if t != nil {
			r.page.Timeline = append(r.page.Timeline, r.figure(t))
		}
	}
}

func share(a, b int64) string {
	if b == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(a)/float64(b))
}

func options(c *curate.Corpus) string {
	o := c.Manifest.Options
	s := "column " + o.TextColumn
	if o.IDsColumn != "" {
		s = "ids in column " + o.IDsColumn
	}
	s += fmt.Sprintf(", long documents: %s, L = %s, special tokens: %s, engine: %s", o.Long, count(int64(o.MaxLength)),
		o.Special, o.Engine)
	if o.QueryScale != 0 {
		s += fmt.Sprintf(", query scale %g", o.QueryScale)
	}
	return s
}

// documents adds the best, median and worst.
func (r *Report) documents(ctx context.Context, c *curate.Corpus, d *data, o Options) error {
	var all []*curate.Document
	var groups [][]*curate.Document
	for _, list := range []*shortlist{&d.best, &d.median, &d.worst} {
		var docs []*curate.Document
		for _, x := range list.list {
			doc, err := c.Document(ctx, x.file, x.row)
			if err != nil {
				return fmt.Errorf("report: %w", err)
			}
			docs = append(docs, doc)
		}
		all, groups = append(all, docs...), append(groups, docs)
	}
	if o.Tokens != nil && len(all) > 0 {
		why, err := o.Tokens(ctx, all)
		if err != nil {
			return err
		}
		r.page.Why = why
	}
	var pieces *Pieces
	if t := c.Manifest.Model.Tokenizer; t != "" {
		var err error
		if pieces, err = ReadPieces(t); err != nil && r.page.Why == "" {
			r.page.Why = oneLine(err.Error())
		}
		if err != nil {
			for _, doc := range all { // their text is shown instead
				doc.Score.TokenNLL = nil
			}
		}
	}
	names := [][2]string{
		{"Lowest perplexity", "easiest for the model: repetition, boilerplate, well-known texts"},
		{"Median", "typical of this corpus"},
		{"Highest perplexity", "most surprising for the model: noise, other languages, broken text"},
	}
	for i, docs := range groups {
		g := docGroup{Name: names[i][0], Note: names[i][1]}
		for _, doc := range docs {
			g.Docs = append(g.Docs, show(doc, pieces))
		}
		if len(g.Docs) > 0 {
			r.page.Docs = append(r.page.Docs, g)
		}
	}
	return nil
}

// levels is how many shades of surprisal there are, a level a nat and a half.
const levels = 8

const natsALevel = 1.5

func level(nll float64) int { return int(max(0, min(nll/natsALevel, levels-1))) }

func show(doc *curate.Document, pieces *Pieces) docView {
	ppl, _ := doc.Score.Perplexity()
	v := docView{Title: fmt.Sprintf("%s, row %s", doc.File.Input.Rel, count(doc.Row))}
	if doc.ID != "" {
		v.Title += " · " + clip(doc.ID, 80)
	}
	v.Facts = fmt.Sprintf("perplexity %s · %s tokens", number(ppl), count(doc.Score.Tokens))
	if b, ok := doc.Score.BitsPerByte(); ok {
		v.Facts += fmt.Sprintf(" · %.3f bits per byte", b)
	}
	if doc.Score.TokenNLL == nil {
		if doc.Text != "" {
			v.Text = clip(doc.Text, shownText)
		} else {
			ids := doc.IDs[:min(len(doc.IDs), shownTokens)]
			v.Text = fmt.Sprint(ids)
		}
		return v
	}
	ids := doc.Score.TokenIDs
	if n := len(ids) - 1; n > shownTokens {
		v.More = count(int64(n-shownTokens)) + " more tokens"
		ids = ids[:shownTokens+1]
	}
	for _, t := range pieces.Tokens(ids, doc.Score.TokenNLL) {
		if t.Given || t.Text == "" {
			continue
		}
		v.Tokens = append(v.Tokens, tokenView{fmt.Sprintf("n%d", level(t.NLL)), fmt.Sprintf("%.2f nats", t.NLL),
			t.Text})
	}
	return v
}

// HTML writes the report's one page.
func (r *Report) HTML(w io.Writer) error {
	b, err := r.page.render()
	if err == nil {
		_, err = w.Write(b)
	}
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// Plots calls write for each plot's files.
func (r *Report) Plots(write func(name string, content func(io.Writer) error) error) error {
	for _, p := range r.plots {
		err := write(p.name+".svg", func(w io.Writer) error {
			_, err := io.WriteString(w, p.svg(true))
			return err
		})
		if err != nil {
			return err
		}
		if err := write(p.name+".png", p.png); err != nil {
			return err
		}
	}
	return nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
