package report

import (
	"fmt"
	"html"
	"strings"
)

// role determines a shape's colour.
type role string

// The roles. Heats go from 0 to heats-1.
const (
	ink    role = "ink"
	muted  role = "muted"
	grid   role = "grid"
	accent role = "accent"
	line   role = "line"
	marker role = "marker"
)

const heats = 9

func heat(i int) role { return role(fmt.Sprintf("h%d", i)) }

// colours of a theme by role.
var light = map[role]string{
	ink: "#1b1d22", muted: "#5b616e", grid: "#dfe2e8", accent: "#7aa7e8", line: "#1f5fbf", marker: "#b3420a",
	"paper": "#ffffff",
	"h0":    "#e3edfa", "h1": "#c6dbf4", "h2": "#a3c5ec", "h3": "#7dabe2", "h4": "#578fd4", "h5": "#3a74c0",
	"h6": "#265ba4", "h7": "#174384", "h8": "#0b2d62",
}

var dark = map[role]string{
	ink: "#e8eaef", muted: "#a2a9b8", grid: "#343944", accent: "#2f64ae", line: "#86b4f5", marker: "#ffb27a",
	"paper": "#15171c",
	"h0":    "#16263f", "h1": "#1a3358", "h2": "#204475", "h3": "#295993", "h4": "#366fb2", "h5": "#4a88cf",
	"h6": "#69a2e4", "h7": "#93bff2", "h8": "#c6defb",
}

type point struct{ x, y float64 }

// shape is a rectangle, a closed or open path, or a text.
type shape struct {
	role    role
	points  []point // a path; for a text, where it is
	closed  bool    // filled
	width   float64 // of the line
	text    string
	anchor  string // start, middle, end
	size    float64
	bold    bool
	tooltip string
	id      string
}

// plot is a picture of w by h units.
type plot struct {
	name        string // of its file
	title, desc string
	w, h        float64
	shapes      []shape
}

func (p *plot) rect(r role, x, y, w, h float64, tooltip string) {
	p.shapes = append(p.shapes, shape{role: r, closed: true, points: []point{{x, y}, {x + w, y}, {x + w, y + h}, {x,
		y + h}}, tooltip: tooltip})
}

func (p *plot) path(r role, width float64, points ...point) {
	p.shapes = append(p.shapes, shape{role: r, points: points, width: width})
}

func (p *plot) label(r role, x, y float64, anchor, text string) {
	p.shapes = append(p.shapes, shape{role: r, points: []point{{x, y}}, text: text, anchor: anchor, size: 13})
}

// svg writes the plot. Its colours come from classes of the page around it, or,
// alone, from its own style.
func (p *plot) svg(alone bool) string {
	var b strings.Builder
	e := html.EscapeString
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" role="img" aria-labelledby="t-%s d-%s" class="plot" id="plot-%s">`, p.w, p.h, p.name, p.name, p.name)
	fmt.Fprintf(&b, `<title id="t-%s">%s</title><desc id="d-%s">%s</desc>`, p.name, e(p.title), p.name, e(p.desc))
	if alone {
		fmt.Fprintf(&b, "<style>text{font:13px system-ui,sans-serif}%s@media (prefers-color-scheme:dark){%s}</style>",
			styles("", light), styles("", dark))
		fmt.Fprintf(&b, `<rect width="%g" height="%g" class="f-paper"/>`, p.w, p.h)
	}
	for _, s := range p.shapes {
		tip := ""
		if s.tooltip != "" {
			tip = "<title>" + e(s.tooltip) + "</title>"
		}
		id := ""
		if s.id != "" {
			id = fmt.Sprintf(` id="%s"`, s.id)
		}
		switch {
		case s.text != "":
			weight := ""
			if s.bold {
				weight = ` font-weight="600"`
			}
			fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s" class="f-%s"%s%s>%s</text>`, s.points[0].x,
				s.points[0].y, s.anchor, s.role, weight, id, e(s.text))
		case s.closed:
			fmt.Fprintf(&b, `<path d="%sZ" class="f-%s"%s>%s</path>`, d(s.points), s.role, id, tip)
		default:
			fmt.Fprintf(&b, `<path d="%s" fill="none" stroke-width="%g" class="s-%s"%s/>`, d(s.points), s.width, s.role,
				id)
		}
	}
	b.WriteString("</svg>")
	return b.String()
}

func d(points []point) string {
	var b strings.Builder
	for i, q := range points {
		c := 'L'
		if i == 0 {
			c = 'M'
		}
		fmt.Fprintf(&b, "%c%.1f %.1f", c, q.x, q.y)
	}
	return b.String()
}

// styles writes the rules that give roles their colours.
func styles(prefix string, theme map[role]string) string {
	var b strings.Builder
	for _, r := range []role{ink, muted, grid, accent, line, marker, "paper", "h0", "h1", "h2", "h3", "h4", "h5", "h6",
		"h7", "h8"} {
		fmt.Fprintf(&b, "%s.f-%s{fill:%s}%s.s-%s{stroke:%s}", prefix, r, theme[r], prefix, r, theme[r])
	}
	return b.String()
}
