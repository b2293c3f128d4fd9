package e2e

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"surprisal/internal/jobs/record"
	"surprisal/internal/testkit/browsertest"
)

//go:embed testdata/axe.min.js
var axe string

// Read before TestMain clears the environment.
var (
	testShots = os.Getenv("SURPRISAL_TEST_SHOTS")
	testAlone = os.Getenv("SURPRISAL_TEST_ALONE") != "" // nothing else runs: bars of time hold
)

// browserPage is the live page in a browser.
type browserPage struct {
	*browsertest.Page
	t   *testing.T
	url string
}

// newPage starts a browser; the test is skipped where there is none.
func newPage(t *testing.T, url string) *browserPage {
	t.Helper()
	return &browserPage{browsertest.New(t, url+"/"), t, url}
}

func (p *browserPage) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// open shows a route at a width, light or dark.
func (p *browserPage) open(route string, width int64, theme string) {
	p.t.Helper()
	p.Look(width, theme)
	p.ok(chromedp.Do(p.Ctx, chromedp.Navigate("about:blank"), chromedp.Navigate(p.url+"/"+route)))
}

func eval[T any](p *browserPage, expr string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.Ctx, chromedp.Evaluate[T](expr))
	if err != nil {
		p.t.Fatalf("%s: %v", expr, err)
	}
	return v
}

// button is the expression of a box's first button whose text begins with label.
func button(box, label string) string {
	return fmt.Sprintf("[...document.querySelectorAll('.%s button')].find((b) => b.textContent.startsWith('%s'))",
		box, label)
}

// until waits for an expression to be true in the page.
func (p *browserPage) until(expr string) {
	p.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if eval[bool](p, "Boolean("+expr+")") {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("never true: %s\nthe page says: %s", expr, eval[string](p, "document.body.innerText"))
		}
	}
}

func (p *browserPage) text() string { p.t.Helper(); return eval[string](p, "document.body.innerText") }

// shot keeps a picture where SURPRISAL_TEST_SHOTS says.
func (p *browserPage) shot(name string) {
	p.t.Helper()
	b, err := chromedp.Run(p.Ctx, chromedp.FullScreenshot(100))
	if err != nil || len(b) < 5_000 {
		p.t.Fatalf("a picture of %d bytes: %v", len(b), err)
	}
	if testShots != "" {
		p.ok(os.WriteFile(filepath.Join(testShots, name+".png"), b, 0o600))
	}
}

// accessible fails on what axe-core finds that is serious or critical.
func (p *browserPage) accessible(what string) {
	p.t.Helper()
	_ = eval[bool](p, axe+"; true")
	// A promise is not waited for: its answer is.
	_ = eval[bool](p, `window.found = null; axe.run(document).then((r) => {
		window.found = JSON.stringify(r.violations.map((v) =>
			({impact: v.impact, id: v.id, nodes: v.nodes.slice(0, 3).map((n) => n.html + " " + n.failureSummary)})))
		}, (e) => { window.found = "failed: " + e }); true`)
	p.until("window.found !== null")
	found := eval[string](p, "window.found")
	var list []struct {
		Impact, ID string
		Nodes      []string
	}
	if err := json.Unmarshal([]byte(found), &list); err != nil {
		p.t.Fatalf("axe: %s", found)
	}
	for _, v := range list {
		if v.Impact == "serious" || v.Impact == "critical" {
			p.t.Errorf("%s: %s: %s: %s", what, v.Impact, v.ID, strings.Join(v.Nodes, "\n"))
		} else {
			p.t.Logf("%s: %s: %s: %s", what, v.Impact, v.ID, strings.Join(v.Nodes, "\n"))
		}
	}
}

// firstPaint loads the page n times and gives when it was first painted, and when
// all there is to show was drawn, milliseconds, the quickest first.
func (p *browserPage) firstPaint(n int) (painted, drawn []float64) {
	p.t.Helper()
	for range n {
		p.open("", 1280, "light")
		p.until("performance.getEntriesByName('first-contentful-paint').length && " +
			"performance.getEntriesByName('drawn').length")
		painted = append(painted,
			eval[float64](p, "performance.getEntriesByName('first-contentful-paint')[0].startTime"))
		drawn = append(drawn, eval[float64](p, "performance.getEntriesByName('drawn')[0].startTime"))
	}
	slices.Sort(painted)
	slices.Sort(drawn)
	return painted, drawn
}

// TestServeHundredThousandJobs: a run of 100,000 jobs, 200 workers and some more
// runs, in a browser: how soon it is painted, what it weighs, whether everybody can
// use it, and that an outage of NATS is said and got over.
func TestServeHundredThousandJobs(t *testing.T) {
	if !testAlone {
		t.Skip("SURPRISAL_TEST_ALONE=1 runs it: writes 100,000 records, and measures how fast they are shown")
	}
	f := newFleet(t)
	now := time.Now()
	m := f.run("20261123-084512-k3f9ab", now.Add(-5*time.Hour), 100, 1000, record.RunRunning,
		map[record.State]int{record.StateDead: 23, record.StateDone: 61_000, record.StateFailed: 31,
			record.StateWaiting: 12, record.StateRunning: 400})
	f.run("20261122-201500-w7c2mn", now.Add(-19*time.Hour), 10, 40, record.RunComplete,
		map[record.State]int{record.StateDone: 400})
	f.run("20261123-131007-p9d4tr", now.Add(-2*time.Hour), 4, 100, record.RunPaused,
		map[record.State]int{record.StateDone: 120})
	f.run("20261122-090000-b5x8zz", now.Add(-30*time.Hour), 5, 20, record.RunFailed,
		map[record.State]int{record.StateDone: 96, record.StateDead: 4})
	f.work(200, m.Jobs()[61_066:], 700*time.Millisecond)
	s := startServe(t, []string{"SURPRISAL_SERVE_TOKEN=" + serveToken})
	began := time.Now()
	waitFor(t, "all is counted", func() bool {
		v := s.state()
		return len(v.Runs) == 4 && v.Fleet.Workers == 200 && !slices.ContainsFunc(v.Runs, func(r struct {
			ID, State string
			Counts    map[string]int
			Counting  bool
			Percent   float64
			Documents int64
		}) bool {
			return r.Counting
		})
	})
	rss, peak := s.rss()
	t.Logf("100,000 jobs counted in %s; serve has %d MiB, at most %d", time.Since(began).Round(time.Millisecond),
		rss>>20, peak>>20)
	v := s.state()
	if c := v.Runs[len(v.Runs)-1].Counts; v.Fleet.Dead != 27 || len(v.Workers.List) != 20 ||
		len(v.Workers.Cells) != 200 {
		t.Errorf("%+v %v", v.Fleet, c)
	}
	for _, path := range []string{"jobs?state=failed", "jobs?state=done", "jobs?state=queued", "dead?",
		"job?job=" + m.Jobs()[0].ID} {
		began := time.Now()
		if code, body, _ := s.ask("GET", "/api/"+path+"&run=20261123-084512-k3f9ab", "", nil); code != 200 {
			t.Errorf("%s: %d %s", path, code, body)
		}
		t.Logf("/api/%.20s: %s", path, time.Since(began).Round(time.Millisecond))
	}
	t.Logf("serve takes %.1f %% of a core while nobody looks on", 100*s.cores(5*time.Second))
	p := newPage(t, s.url)
	paints, drawn := p.firstPaint(9)
	t.Logf("and %.1f %% while somebody does", 100*s.cores(5*time.Second))
	load, _ := os.ReadFile("/proc/loadavg") // for people
	t.Logf("first contentful paint: %.0f ms; all drawn: %.0f ms (load average %.14s)", paints, drawn, load)
	if testAlone && paints[0] >= 200 {
		t.Errorf("first painted after %.0f ms", paints)
	}
	p.until("document.querySelectorAll('.workers tbody tr').length === 20 && " +
		"document.querySelectorAll('.cell').length > 200")
	says(t, p.text(), "live", "20261123-084512-k3f9ab", "gdn2_kla_1.3B", "27", "200 workers")
	job := m.Jobs()[0].ID
	for _, x := range []struct{ name, route, ready string }{
		{"overview", "", "document.querySelectorAll('.spark path[d]').length > 5"},
		{"run", "#/run/20261123-084512-k3f9ab/failed", "document.querySelectorAll('.lines tbody tr').length > 20"},
		{"jobs", "#/run/20261123-084512-k3f9ab/done", "document.querySelectorAll('.lines tbody tr').length === 50"},
		{"queued", "#/run/20261123-084512-k3f9ab/queued/3",
			"document.querySelectorAll('.lines tbody tr').length === 50"},
		{"job", "#/run/20261123-084512-k3f9ab/job/" + job, "document.body.innerText.includes('Dead letter')"},
		{"dead", "#/dead", "document.querySelectorAll('.letter').length === 20"},
	} {
		for width, theme := range map[int64]string{1280: "light", 390: "dark", 700: "light"} {
			p.open(x.route, width, theme)
			p.until(x.ready)
			if eval[bool](p, `document.documentElement.scrollWidth > innerWidth + 1`) {
				t.Errorf("%s %d %s: the page is wider than the screen", x.name, width, theme)
			}
			if width != 700 {
				p.accessible(fmt.Sprintf("%s %d %s", x.name, width, theme))
			}
			p.shot(fmt.Sprintf("%s-%d-%s", x.name, width, theme))
		}
	}
	p.Quiet()
	rss, peak = s.rss()
	t.Logf("after all pages: serve has %d MiB, at most %d", rss>>20, peak>>20)
	if peak > 256<<20 {
		t.Errorf("serve took %d MiB", peak>>20)
	}

	// NATS goes away and comes back.
	p.open("", 1280, "light")
	p.until("document.getElementById('link').classList.contains('on')")
	f.server.Shutdown()
	p.until("!document.getElementById('outage').hidden && " +
		"document.getElementById('outage').innerText.includes('NATS has been unreachable')")
	says(t, p.text(), "NATS has been unreachable", "reconnects", "20261123-084512-k3f9ab")
	p.accessible("outage")
	p.shot("outage")
	if code, body, _ := s.ask("GET", "/api/dead", "", nil); code != 503 {
		t.Errorf("a list while NATS is away: %d %s", code, body)
	}
	f.start()
	p.until("document.getElementById('outage').hidden && document.getElementById('link').classList.contains('on')")
	before := s.state().Fleet.Done
	waitFor(t, "jobs are done again", func() bool { return s.state().Fleet.Done > before })
	p.Quiet()
}
