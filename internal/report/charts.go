package report

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"surprisal/internal/score"
)

// Sizes in units; a plot is shown at about 1.2 pixels a unit, on a phone at 0.8.
const (
	plotWidth  = 440
	padLeft    = 16
	padRight   = 16
	axisHeight = 34
)

// logAxis maps values between lo and hi to x between left and right.
type logAxis struct{ lo, hi, left, right float64 }

func (a logAxis) at(x float64) float64 {
	t := (math.Log10(x) - math.Log10(a.lo)) / (math.Log10(a.hi) - math.Log10(a.lo))
	return a.left + max(0, min(t, 1))*(a.right-a.left)
}

// ticks are the powers of ten within, or, within little more than one, their
// doubles and fives too.
func (a logAxis) ticks() []float64 {
	var all []float64
	steps := []float64{1}
	if math.Log10(a.hi/a.lo) < 2.2 {
		steps = []float64{1, 2, 5}
	}
	for e := math.Floor(math.Log10(a.lo)); e <= math.Ceil(math.Log10(a.hi)); e++ {
		for _, s := range steps {
			if x := s * math.Pow(10, e); x >= a.lo*.999 && x <= a.hi*1.001 {
				all = append(all, x)
			}
		}
	}
	return all
}

func (p *plot) xAxis(a logAxis, top, bottom float64, name string) {
	for _, x := range a.ticks() {
		at := a.at(x)
		p.path(grid, 1, point{at, top}, point{at, bottom})
		p.label(muted, at, bottom+15, "middle", tick(x))
	}
	p.label(muted, (a.left+a.right)/2, bottom+31, "middle", name)
}

// span is the part of a histogram that has rows, in bins [from, to).
func (h *histogram) span() (from, to int) {
	from, to = 0, len(h.rows)
	for from < to && h.rows[from] == 0 {
		from++
	}
	for to > from && h.rows[to-1] == 0 {
		to--
	}
	return from, to
}

// step is how many bins are drawn as one: fewer, wider ones for few rows.
func (h *histogram) step(from, to int) int {
	want := int(min(64, max(12, 3*math.Cbrt(float64(h.n)))))
	return max(1, (to-from+want-1)/want)
}

// whole moves the end of a span so that its last bar is as wide as the others.
func (h *histogram) whole(from, to, step int) int {
	return min(from+(to-from+step-1)/step*step, len(h.rows))
}

// outline draws a histogram's shape above a base line, as high as height at its
// highest, and gives that height's rows.
func (p *plot) outline(h *histogram, a logAxis, from, to, step int, base, height float64, what string) {
	most := int64(1)
	var sums []int64
	for i := from; i < to; i += step {
		n := int64(0)
		for _, k := range h.rows[i:min(i+step, to)] {
			n += k
		}
		sums = append(sums, n)
		most = max(most, n)
	}
	for k, n := range sums {
		lo, hi := h.edge(from+k*step), h.edge(min(from+(k+1)*step, to))
		x0, x1 := a.at(lo), a.at(hi)
		y := float64(n) / float64(most) * height
		if n > 0 {
			y = max(y, 1)
			p.rect(accent, x0, base-y, max(x1-x0-.8, .8), y, fmt.Sprintf("%s to %s %s: %s documents", number(lo),
				number(hi),
				what, count(n)))
		}
	}
}

// distribution draws one histogram.
func distribution(name, title, axis string, h *histogram) *plot {
	const height = 190
	p := &plot{name: name, title: title, w: plotWidth, h: height + axisHeight + 12}
	if h.n == 0 {
		p.desc = "No document has a value."
		p.label(muted, plotWidth/2, height/2, "middle", "no values")
		return p
	}
	from, to := h.span()
	p.desc = fmt.Sprintf("%s documents from %s to %s, on a logarithmic axis.", count(h.n), number(h.min), number(h.max))
	step := h.step(from, to)
	to = h.whole(from, to, step)
	a := logAxis{h.edge(from), h.edge(to), padLeft, plotWidth - padRight}
	p.xAxis(a, 8, height, axis)
	p.outline(h, a, from, to, step, height, height-14, axis)
	p.path(muted, 1, point{a.left, height}, point{a.right, height})
	return p
}

// maxRidges is how many values of a column are drawn.
const maxRidges = 10

// ridges draws a histogram for each value of a column, largest first, and each
// as high as the others.
func ridges(name, column, title, axis string, parts map[string]*part, of func(*part) *histogram) *plot {
	list := slices.SortedFunc(maps.Values(parts), func(a, b *part) int {
		return cmp.Or(cmp.Compare(b.rows, a.rows), cmp.Compare(a.name, b.name))
	})
	const top, each, gap = 8.0, 46.0, 24.0
	more := len(list) - maxRidges
	list = list[:min(len(list), maxRidges)]
	whole := newHistogram(of(newPart("")).per, of(newPart("")).low, 1)
	whole.rows = make([]int64, len(of(newPart("")).rows))
	for _, q := range list {
		whole.merge(of(q))
	}
	bottom := top + float64(len(list))*(each+gap)
	p := &plot{name: name, title: title, w: plotWidth, h: bottom + axisHeight + 12}
	p.desc = fmt.Sprintf("One distribution for each of %d values of %s, each scaled to the same height.", len(list),
		column)
	if more > 0 {
		p.desc += fmt.Sprintf(" %d values with fewer documents are not shown.", more)
	}
	if whole.n == 0 {
		p.label(muted, plotWidth/2, bottom/2, "middle", "no values")
		return p
	}
	from, to := whole.span()
	a := logAxis{whole.edge(from), whole.edge(to), padLeft, plotWidth - padRight}
	p.xAxis(a, top, bottom, axis)
	for i, q := range list {
		base := top + float64(i+1)*(each+gap)
		h := of(q)
		p.outline(h, a, from, to, max(h.step(from, to), 1), base, each, axis)
		p.path(muted, 1, point{a.left, base}, point{a.right, base})
		p.label(ink, a.left, base-each-6, "start", clip(q.name, 34))
		p.label(muted, a.right, base-each-6, "end", short(q.rows)+" documents")
	}
	return p
}

// density draws length against perplexity.
func density(d *data) *plot {
	const height = 300
	p := &plot{name: "density", title: "Length against perplexity", w: plotWidth, h: height + axisHeight + 12}
	most := int64(0)
	t0, t1, p0, p1 := densityTok, 0, densityPpl, 0
	for t := range densityTok {
		for q := range densityPpl {
			if n := d.density[t*densityPpl+q]; n > 0 {
				most = max(most, n)
				t0, t1, p0, p1 = min(t0, t), max(t1, t+1), min(p0, q), max(p1, q+1)
			}
		}
	}
	if most == 0 {
		p.desc = "No document has a value."
		p.label(muted, plotWidth/2, height/2, "middle", "no values")
		return p
	}
	edge := func(i int) float64 { return math.Pow(10, float64(i)/densityPerDecade) }
	const left = 52
	x := logAxis{edge(t0), edge(t1), left, plotWidth - padRight}
	y := logAxis{edge(p0), edge(p1), height, 20}
	p.xAxis(x, 20, height, "tokens")
	for _, v := range y.ticks() {
		p.path(grid, 1, point{x.left, y.at(v)}, point{x.right, y.at(v)})
		p.label(muted, left-6, y.at(v)+4, "end", tick(v))
	}
	p.label(muted, 4, 13, "start", "perplexity")
	for t := t0; t < t1; t++ {
		for q := p0; q < p1; q++ {
			n := d.density[t*densityPpl+q]
			if n == 0 {
				continue
			}
			k := 1.0
			if most > 1 {
				k = math.Log(float64(n)+1) / math.Log(float64(most)+1)
			}
			x0, x1, y0, y1 := x.at(edge(t)), x.at(edge(t+1)), y.at(edge(q+1)), y.at(edge(q))
			p.rect(heat(1+int(k*(heats-2))), x0, y0, x1-x0, y1-y0,
				fmt.Sprintf("%s to %s tokens, perplexity %s to %s: %s documents", number(edge(t)), number(edge(t+1)),
					number(edge(q)), number(edge(q+1)), count(n)))
		}
	}
	p.desc = fmt.Sprintf("Documents by length and perplexity, both on logarithmic axes; the fullest cell has %s.",
		count(most))
	return p
}

// keptCurve draws the share of documents' tokens that each percentile keeps.
func keptCurve(d *data) *plot {
	const height, left = 190.0, 52.0
	p := &plot{name: "kept", title: "Tokens kept by a perplexity threshold", w: plotWidth, h: height + axisHeight + 12}
	p.desc = "Share of tokens in documents below each percentile of perplexity."
	total := float64(d.steps[len(d.steps)-1].Tokens)
	if total == 0 {
		p.label(muted, plotWidth/2, height/2, "middle", "no values")
		return p
	}
	x := func(v float64) float64 { return left + v/100*(plotWidth-padRight-left) }
	y := func(share float64) float64 { return height - share*(height-20) }
	for v := 0.0; v <= 100; v += 25 {
		p.path(grid, 1, point{x(v), 20}, point{x(v), height})
		p.label(muted, x(v), height+15, "middle", fmt.Sprintf("p%g", v))
		p.path(grid, 1, point{left, y(v / 100)}, point{plotWidth - padRight, y(v / 100)})
		p.label(muted, left-6, y(v/100)+4, "end", fmt.Sprintf("%g %%", v))
	}
	p.label(muted, (left+plotWidth-padRight)/2, height+31, "middle", "percentile of perplexity")
	var curve []point
	for _, s := range d.steps {
		curve = append(curve, point{x(s.P), y(float64(s.Tokens) / total)})
	}
	p.path(line, 2, curve...)
	p.path(marker, 2, point{x(60), 20}, point{x(60), height})
	p.shapes[len(p.shapes)-1].id = "kept-mark"
	return p
}

// throughput draws tokens committed over time; nil where too little is known.
func throughput(d *data) *plot {
	const height, left = 190.0, 60.0
	n := len(d.commits)
	if n < 3 || d.commits[n-1].at.Sub(d.commits[0].at).Seconds() < 1 {
		return nil
	}
	p := &plot{name: "throughput", title: "Tokens committed over time", w: plotWidth, h: height + axisHeight + 12}
	span := d.commits[n-1].at.Sub(d.commits[0].at).Seconds()
	total := 0.0
	for _, c := range d.commits {
		total += float64(c.tokens)
	}
	p.desc = fmt.Sprintf("%s tokens in %s, by the times at which score files were written.", short(int64(total)),
		d.commits[n-1].at.Sub(d.commits[0].at).Round(1e9))
	x, y := p.timeAxes(left, height, span, total)
	sum := 0.0
	var curve []point
	every := max(1, n/1000)
	for i, c := range d.commits {
		sum += float64(c.tokens)
		if i%every == 0 || i == n-1 {
			curve = append(curve, point{x(c.at.Sub(d.commits[0].at).Seconds()), y(sum)})
		}
	}
	p.path(line, 2, curve...)
	return p
}

// power draws the mean power of the GPUs over time: the energy of the jobs that were
// committed in each step of time. Nil where too little is known.
func power(c score.Cost) *plot {
	const height, left = 190.0, 60.0
	n := len(c.Steps)
	if n < 3 {
		return nil
	}
	p := &plot{name: "power", title: "Power of the GPUs over time, watts", w: plotWidth, h: height + axisHeight + 12}
	begin, width := c.Steps[0].At, float64(c.StepSeconds)
	span := float64(c.Steps[n-1].At-begin) + width
	most := 0.0
	for _, s := range c.Steps {
		most = max(most, s.Joules/width)
	}
	if most == 0 {
		return nil
	}
	p.desc = fmt.Sprintf("%s kWh, by the times at which jobs were committed, %s W at most in steps of %s.",
		number(c.Joules/3.6e6), number(most), time.Duration(c.StepSeconds)*time.Second)
	x, y := p.timeAxes(left, height, span, most)
	var curve []point
	at := 0.0 // seconds drawn so far
	for _, s := range c.Steps {
		from := float64(s.At - begin)
		if from > at {
			curve = append(curve, point{x(at), y(0)}, point{x(from), y(0)})
		}
		at = from + width
		curve = append(curve, point{x(from), y(s.Joules / width)}, point{x(at), y(s.Joules / width)})
	}
	p.path(line, 2, curve...)
	return p
}

// timeAxes draws a grid of seconds since the first file from 0 to span against values
// from 0 to most, and gives where they are.
func (p *plot) timeAxes(left, height, span, most float64) (x, y func(float64) float64) {
	unit, name := 1.0, "seconds"
	if span > 7200 {
		unit, name = 3600, "hours"
	} else if span > 300 {
		unit, name = 60, "minutes"
	}
	x = func(s float64) float64 { return left + s/span*(plotWidth-padRight-left) }
	y = func(v float64) float64 { return height - v/most*(height-20) }
	for i := range 5 {
		s, v := span*float64(i)/4, most*float64(i)/4
		p.path(grid, 1, point{x(s), 20}, point{x(s), height})
		p.label(muted, x(s), height+15, "middle", fmt.Sprintf("%.3g", s/unit))
		p.path(grid, 1, point{left, y(v)}, point{plotWidth - padRight, y(v)})
		p.label(muted, left-6, y(v)+4, "end", short(int64(v)))
	}
	p.label(muted, (left+plotWidth-padRight)/2, height+31, "middle", name+" since the first file")
	return x, y
}
