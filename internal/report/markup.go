package report

import (
	"encoding/json"
	"fmt"
	"html"
	"strconv"
	"strings"
)

// markup is HTML as it goes into the page. Everything else in the page is text, which
// escape makes markup: documents are hostile.
//
// Not html/template: it calls methods by names known only at run time, for which the
// linker keeps every method of every type in the program, 14 MB of them.
type markup string

// escape makes text safe between tags and in quoted attributes.
func escape(text string) markup {
	return markup(html.EscapeString(strings.ReplaceAll(text, "\x00", "\ufffd")))
}

// each joins what f makes of every item.
func each[T any](items []T, f func(T, int) markup) markup {
	var b strings.Builder
	for i, item := range items {
		b.WriteString(string(f(item, i)))
	}
	return markup(b.String())
}

// when is m if ok, and empty otherwise.
func when(ok bool, m markup) markup {
	if ok {
		return m
	}
	return ""
}

// render fills the slots of page.html, each {{Name}} once; values are not
// searched for slots.
func (p *page) render() ([]byte, error) {
	steps, err := json.Marshal(p.Steps) // < is escaped in it
	if err != nil {
		return nil, err
	}
	slots := map[string]markup{
		"CSP": escape(p.CSP), "Title": escape(p.Title), "Style": p.Style, "Subtitle": escape(p.Subtitle),
		"Tiles":   each(p.Tiles, tile.markup),
		"Partial": when(p.Partial != "", `<p class="note">`+escape(p.Partial)+"</p>"),
		"Choice": when(len(p.Views) > 1, `<p><label>Show <select id="view">`+
			each(p.Views, func(v view, _ int) markup {
				return "<option>" + escape(v.Name) +
					"</option>"
			})+"</select></label></p>"),
		"Views": each(p.Views, view.markup), "Length": each(p.Length, card), "Kept": p.Kept,
		"Table": each(p.Table, stepRow.markup), "Documents": p.documents(), "Reasons": p.reasons(),
		"Timeline": when(len(p.Timeline) > 0,
			`<section aria-labelledby="h-time">`+"\n"+`<h2 id="h-time">Over time</h2>`+
				"\n"+`<div class="grid">`+each(p.Timeline, card)+"</div>\n</section>"),
		"Facts": each(p.Facts, func(f [2]string, _ int) markup {
			return "<dt>" + escape(f[0]) + "</dt><dd>" + escape(f[1]) + "</dd>"
		}),
		"Made": escape(p.Made), "Steps": markup(steps), "Script": p.Script,
	}
	var b strings.Builder
	for rest := pageSource; ; {
		before, after, found := strings.Cut(rest, "{{")
		b.WriteString(before)
		if !found {
			return []byte(b.String()), nil
		}
		name, after, _ := strings.Cut(after, "}}")
		m, ok := slots[name]
		if !ok {
			return nil, fmt.Errorf("page.html has an unknown slot %q", name)
		}
		b.WriteString(string(m))
		rest = after
	}
}

// card is a figure in a frame.
func card(figure markup, _ int) markup { return `<figure class="card">` + figure + "</figure>" }

func column(text string, _ int) markup { return "<td>" + escape(text) + "</td>" }

func (t tile) markup(int) markup {
	return "<li><b>" + escape(t.Value) + "</b><span>" + escape(t.Name) + "</span></li>"
}

func (v view) markup(i int) markup {
	rows := each(v.Rows, func(row []string, _ int) markup { return "<tr>" + each(row, column) + "</tr>" })
	table := `<div class="card scroll" style="margin-top:16px"><table>
<thead><tr><th>value</th><th>documents</th><th>tokens</th>` +
		`<th>perplexity of all text</th><th>failed rows</th></tr></thead>
<tbody>` + rows + "</tbody>\n</table>" +
		when(v.More > 0, `<p class="muted">and `+markup(strconv.Itoa(v.More))+" more values</p>") + "</div>"
	return `<div data-view="` + escape(v.Name) + `"` + when(i > 0, " hidden") + ">\n" +
		`<div class="grid">` + each(v.Figures, card) + "</div>\n" + when(len(v.Rows) > 0, table) + "\n</div>"
}

func (r stepRow) markup(int) markup {
	return "<tr>" + each([]string{r.P, r.PPL, r.Rows, r.Share, r.Tokens, r.TokenShare, r.Kept}, column) + "</tr>"
}

// documents is the section of texts; none, no section.
func (p *page) documents() markup {
	legend := `<p class="legend" aria-label="Legend: surprisal of a token, from 0 to more than 10 nats">` +
		"<span>surprisal of a token: 0</span>" +
		each(p.Legend, func(n, _ int) markup { return `<i class="n` + markup(strconv.Itoa(n)) + `"></i>` }) +
		"<span>10 nats or more</span></p>"
	if p.Why != "" {
		legend = `<p class="note">Not coloured by surprisal: ` + escape(p.Why) + "</p>"
	}
	groups := each(p.Docs, func(g docGroup, _ int) markup {
		return "<h3>" + escape(g.Name) + `</h3><p class="muted">` + escape(g.Note) + "</p>\n" +
			each(g.Docs, docView.markup)
	})
	return when(len(p.Docs) > 0, `<section aria-labelledby="h-docs">`+"\n"+`<h2 id="h-docs">Documents</h2>`+"\n"+
		legend+"\n"+groups+"\n</section>")
}

func (d docView) markup(i int) markup {
	text := escape(d.Text)
	if len(d.Tokens) > 0 {
		text = each(d.Tokens, func(t tokenView, _ int) markup {
			return `<i class="` + escape(t.Class) + `" title="` + escape(t.Tip) + `">` + escape(t.Text) + "</i>"
		})
	}
	return "<details" + when(i == 0, " open") + "><summary>" + escape(d.Title) + "<span>" + escape(d.Facts) +
		"</span></summary>" +
		`<div class="doc" tabindex="0" role="region" aria-label="Text of ` + escape(d.Title) + `">` + text +
		when(d.More != "", `<span class="muted"> … `+escape(d.More)+"</span>") + "</div></details>\n"
}

// reasons is the table of rows without a score.
func (p *page) reasons() markup {
	if len(p.Reasons) == 0 {
		return `<p class="muted">No rows without a score.</p>`
	}
	return `<div class="card scroll"><table><thead><tr><th>reason</th><th>rows</th></tr></thead><tbody>` +
		each(p.Reasons, func(r reasonRow, _ int) markup {
			return "<tr>" + each([]string{r.Reason, r.Rows}, column) +
				"</tr>"
		}) +
		"</tbody></table></div>"
}
