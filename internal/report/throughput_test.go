package report

import (
	"bytes"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestThroughput draws score files of known times.
func TestThroughput(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	evenly := func(n int, span time.Duration) *data {
		d := &data{}
		for i := range n {
			d.commits = append(d.commits, commit{start.Add(span * time.Duration(i) / time.Duration(max(n-1, 1))), 1000})
		}
		return d
	}
	for what, tc := range map[string]struct {
		n    int
		span time.Duration
		says []string // labels and description; none: no plot
	}{
		"no file":     {0, 0, nil},
		"two files":   {2, time.Hour, nil},
		"all at once": {50, 500 * time.Millisecond, nil},
		"seconds":     {3, 40 * time.Second, []string{"seconds since the first file", "40", "3,000", "in 40s"}},
		"minutes":     {100, 30 * time.Minute, []string{"minutes since the first file", "30", "22.5", "in 30m0s"}},
		"hours":       {5000, 50 * time.Hour, []string{"hours since the first file", "50", "12.5", "in 50h0m0s"}},
	} {
		p := throughput(evenly(tc.n, tc.span))
		if p == nil || tc.says == nil {
			if p != nil || tc.says != nil {
				t.Errorf("%s: %v", what, p)
			}
			continue
		}
		text := p.desc
		var curve []point
		for _, s := range p.shapes {
			text += " " + s.text
			if s.role == line {
				curve = s.points
			}
		}
		for _, w := range tc.says {
			if !strings.Contains(text, w) && !strings.Contains(strings.ReplaceAll(text, " k", ",000"), w) {
				t.Errorf("%s: no %q in %q", what, w, text)
			}
		}
		if len(curve) < min(tc.n, 1000) || len(curve) > 1002 {
			t.Fatalf("%s: %d points of %d files", what, len(curve), tc.n)
		}
		first, last := curve[0], curve[len(curve)-1]
		if first.x != 60 || math.Abs(last.x-(plotWidth-padRight)) > 1e-9 || math.Abs(last.y-20) > 1e-9 ||
			first.y >= 190 {
			t.Errorf("%s: from %v to %v", what, first, last)
		}
		if !slices.IsSortedFunc(curve, func(a, b point) int { return int(1e6 * (a.x - b.x)) }) ||
			!slices.IsSortedFunc(curve, func(a, b point) int { return int(1e6 * (b.y - a.y)) }) {
			t.Errorf("%s: the curve turns back", what)
		}
	}
}

// TestTimeline: the page has the plot where score files have times apart, in order
// of time.
func TestTimeline(t *testing.T) {
	c := hostileCorpus(t)
	at := time.Now().Add(-time.Hour)
	n := 0
	for _, f := range c.Files {
		for i, s := range f.Scores {
			n++
			if err := os.Chtimes(s.Path, time.Time{},
				at.Add(time.Duration(7*i%len(f.Scores))*time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n < 3 {
		t.Fatalf("%d score files", n)
	}
	r, err := Make(t.Context(), c, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := r.HTML(&page); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page.String(), "Tokens committed over time") || !strings.Contains(page.String(),
		" since the first file") {
		t.Error("the page has no plot of throughput")
	}
	for _, f := range c.Files {
		for _, s := range f.Scores {
			if err := os.Chtimes(s.Path, time.Time{}, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r, err = Make(t.Context(), c, Options{}); err != nil {
		t.Fatal(err)
	}
	page.Reset()
	if err := r.HTML(&page); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(page.String(), "Tokens committed over time") {
		t.Error("a plot of files that are all of one time")
	}
}
