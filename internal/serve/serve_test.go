package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs/record"
	"surprisal/internal/monitor"
)

func newServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	if cfg.Address == nil {
		cfg.Address = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
	}
	cfg.Log = zerolog.Nop()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestHosts: names and addresses that a request may name the server by.
func TestHosts(t *testing.T) {
	loop, all := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4zero}
	for _, x := range []struct {
		at   net.Addr
		host string
		want bool
	}{
		{loop, "localhost", true}, {loop, "LocalHost:80", true}, {loop, "localhost.", true},
		{loop, "127.0.0.1:8090", true},
		{loop, "127.8.8.8", true}, {loop, "[::1]", true}, {loop, "[::1]:1", true}, {loop, "10.0.0.1", false}, {loop,
			"0.0.0.0:8090", false},
		{loop, "", false}, {loop, "evil.example", false}, {loop, "localhost.evil.example", false},
		{loop, "127.0.0.1.nip.io",
			false},
		{loop, "2130706433", false}, {loop, "queue.example", true}, {loop, "QUEUE.example.:443", true}, {loop,
			"a.queue.example", false},
		{all, "10.0.0.1:8090", true}, {all, "[fd00::1]:8090", true}, {all, "evil.example:8090", false}, {all,
			"queue.example", true},
	} {
		g := newGuard(Config{Address: x.at, Hosts: []string{"Queue.Example"}}, nil)
		if got := g.known(x.host); got != x.want {
			t.Errorf("%s asked for as %q: %t", x.at, x.host, got)
		}
	}
}

// TestSeries: points are letters of their top; what is missing is a gap; only the
// newest are kept.
func TestSeries(t *testing.T) {
	s := series{most: 4}
	if s.line(1) != nil {
		t.Error("a line of nothing")
	}
	for _, v := range []float64{9, 0, math.NaN(), 2, 4} {
		s.add(v)
	}
	if l := s.line(1); l.Points != "A.g_" || l.Top != 4 {
		t.Errorf("%+v", l)
	}
	s = series{most: 2}
	s.add(math.NaN())
	if s.line(1) != nil {
		t.Error("a line of gaps")
	}
	s.add(0.5)
	if l := s.line(1); l.Points != ".g" || l.Top != 1 {
		t.Errorf("%+v", l)
	}
}

// TestWorkerStates: a worker that is still is silent; one that vanished after that
// with jobs in hand is gone, for a while; one that took its record away is not.
func TestWorkerStates(t *testing.T) {
	s := newServer(t, Config{})
	h := newHistory()
	at := time.Now()
	rec := func(id string, signed time.Duration, hand int) record.Worker {
		return record.Worker{ID: id, Started: at, Updated: at.Add(signed), TokensPerSec: 5,
			Progress: make([]record.Progress,
				hand)}
	}
	states := func(now time.Duration, list ...record.Worker) map[string]int {
		t.Helper()
		h.workersNow(list, at.Add(now))
		st := state{link: link{OK: true}, fleet: fleet{States: map[string]int{}}}
		s.composeWorkers(&st, h, at.Add(now))
		return st.fleet.States
	}
	want := func(got map[string]int, want string) {
		t.Helper()
		if fmt.Sprint(got) != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
	a, b, c := rec("a", 0, 1), rec("b", 0, 0), rec("c", 0, 1)
	want(states(0, a, b, c), "map[busy:2 idle:1]")
	want(states(5*time.Second, a, b, c), "map[busy:2 idle:1]")
	b = rec("b", 9*time.Second, 0)
	want(states(9*time.Second, a, b, c), "map[idle:1 silent:2]")
	a.Stalled, c = "no progress", rec("c", 20*time.Second, 1)
	want(states(20*time.Second, a, b, c), "map[busy:1 silent:1 stalled:1]")
	want(states(21*time.Second, a, c), "map[busy:1 silent:1 stalled:1]")
	want(states(27*time.Second, a, c), "map[busy:1 stalled:1]")
	want(states(31*time.Second, c), "map[silent:1 stalled:1]")
	want(states(37*time.Second, c), "map[gone:1 silent:1]") // a's record ran out
	c = rec("c", 37*time.Second, 1)
	want(states(37*time.Second, c), "map[busy:1 gone:1]")
	want(states(38*time.Second), "map[busy:1 gone:1]") // a list may lack one
	want(states(43*time.Second), "map[gone:1]")        // c took its own away
	want(states(37*time.Second+goneFor+time.Second, rec("d", 0, 0)), "map[idle:1]")
}

// TestView: pages, order and what is looked for are the server's; a browser is
// never sent more than a page.
func TestView(t *testing.T) {
	s := newServer(t, Config{})
	var st state
	for i := range 3000 {
		w := worker{ID: fmt.Sprintf("w%04d", i), State: "busy", Rate: float64(i % 7)}
		if i == 2222 {
			w.State = "stalled"
		}
		st.workers = append(st.workers, w)
	}
	for i := range 500 {
		st.runs = append(st.runs, run{ID: fmt.Sprint("run-", i), Over: i >= 100})
	}
	q := func(s string) query { v, _ := url.ParseQuery(s); return parseQuery(v) } // the tests' own
	v := s.view(st, q(""))
	if v.Workers.List[0].ID != "w2222" || len(v.Workers.List) != workersPage || len(v.Workers.Cells) != cellsMost ||
		v.Workers.Found != 3000 {
		t.Errorf("%d workers, first %s", len(v.Workers.List), v.Workers.List[0].ID)
	}
	if len(v.Runs) != liveMost+finalMost || v.Fleet.MoreRuns != 500-liveMost-finalMost {
		t.Errorf("%d runs, %d more", len(v.Runs), v.Fleet.MoreRuns)
	}
	if v = s.view(st, q("run=run-400")); v.Runs[len(v.Runs)-1].ID != "run-400" {
		t.Error("a run that was asked for is not there")
	}
	if v = s.view(st, q("page=99999&sort=name")); v.Workers.Page != 149 || v.Workers.List[19].ID != "w2999" {
		t.Errorf("last page %d: %+v", v.Workers.Page, v.Workers.List)
	}
	if v = s.view(st, q("page=-5&find=W22&sort=fast")); v.Workers.Found != 100 || v.Workers.Page != 0 ||
		v.Workers.List[0].Rate != 6 {
		t.Errorf("%d found, first %+v", v.Workers.Found, v.Workers.List[0])
	}
	if v = s.view(st, q("find=nobody")); v.Workers.Found != 0 || v.Workers.List == nil {
		t.Errorf("%+v", v.Workers.List)
	}
	b, err := json.Marshal(s.view(st, q("")))
	if err != nil || len(b) > 100_000 {
		t.Errorf("%d bytes: %v", len(b), err)
	}
}

// TestPageHoldsNoMarkupOfOthers: what runs and workers say of themselves is data in
// the page.
func TestPageHoldsNoMarkupOfOthers(t *testing.T) {
	s := newServer(t, Config{})
	s.now.workers = []worker{{ID: "w", Host: "</script><script>alert(1)</script><!--"}}
	w := httptest.NewRecorder()
	s.index(w, httptest.NewRequest("GET", "/", nil))
	body := w.Body.String()
	if strings.Contains(body, "<script>alert") || strings.Contains(body, "<!--") ||
		!strings.Contains(body, `\u003cscript\u003ealert`) {
		t.Errorf("%s", body)
	}
	if !strings.Contains(body, "<style>"+string(s.files["app.css"].data)+"</style>") {
		t.Error("the style in the page is not the one that the policy names")
	}
}

// TestStreams: only so many browsers are followed; one that leaves makes room; a
// stream ends with its request.
func TestStreams(t *testing.T) {
	s := newServer(t, Config{})
	mux := http.NewServeMux()
	s.Register(mux)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metrics") })
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = HTTP(mux)
	srv.Start()
	defer srv.Close()
	open := func(ctx context.Context) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/api/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range streamsAtMost {
		res := open(ctx)
		defer res.Body.Close()
		if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil ||
			res.Header.Get("Content-Type") != "text/event-stream" || line == "" {
			t.Fatalf("%v %q", err, line)
		}
	}
	res := open(t.Context())
	_ = res.Body.Close() // read by nobody
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("one more: %d", res.StatusCode)
	}
	cancel()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		n := s.looking
		s.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d streams are still open", n)
		}
	}
	// Others' handlers stand beside.
	res, err := http.Get(srv.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "metrics" {
		t.Errorf("metrics: %d %s", res.StatusCode, b)
	}
}

// TestComposeRuns: what is queued is what is left; a complete run has all of its
// rows; those that go on come first.
func TestComposeRuns(t *testing.T) {
	rec := func(id string, s record.RunState) record.Run {
		return record.Run{ID: id, State: s, Jobs: 10, Rows: 100, Model: record.Run{}.Model}
	}
	left := 30.0
	over := monitor.Overview{Status: monitor.Status{Runs: []monitor.RunStatus{
		{Run: rec("running", record.RunRunning), Jobs: map[record.State]int{record.StateDone: 3, record.StateDead: 1},
			Documents: 30, Pace: monitor.Pace{Left: &left}},
		{Run: rec("paused", record.RunPaused), Jobs: map[record.State]int{}},
		{Run: rec("complete", record.RunComplete), Jobs: map[record.State]int{}},
	}}, More: make([]monitor.RunMore, 3)}
	st := state{fleet: fleet{States: map[string]int{}},
		workers: []worker{{State: "busy", Hand: []inHand{{Run: "running", Documents: 4, Tokens: 9}, {Run: "running"}}}}}
	composeRuns(&st, newHistory(), over, true)
	var order []string
	for _, r := range st.runs {
		order = append(order, r.ID)
	}
	if fmt.Sprint(order) != "[running paused complete]" {
		t.Errorf("%v", order)
	}
	if r := st.runs[0]; r.Counts[monitor.StateQueued] != 6 || r.Documents != 34 || r.Workers != 1 || r.Rates == nil {
		t.Errorf("%+v", r)
	}
	if _, ours := over.Runs[0].Jobs[monitor.StateQueued]; ours {
		t.Error("the monitor's counts were changed, which others may be reading")
	}
	if r := st.runs[2]; r.Documents != 100 || r.Counts[record.StateDone] != 10 || r.Rates != nil {
		t.Errorf("%+v", r)
	}
	if f := st.fleet; f.Live != 2 || f.Jobs != 20 || f.Done != 3 || f.Dead != 1 || *f.Left != 30 {
		t.Errorf("%+v", f)
	}
}
