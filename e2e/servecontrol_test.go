package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/rs/zerolog"

	"surprisal/internal/jobs/embedded"
	"surprisal/internal/jobs/record"
)

// TestServeRefuses: who lacks the token, comes from another site, or asks for
// another name changes nothing.
func TestServeRefuses(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.run("20261123-084512-k3f9ab", time.Now(), 1, 5, record.RunRunning, nil)
	token := filepath.Join(t.TempDir(), "token")
	writeFile(t, token, serveToken+"\n")
	s := startServe(t, nil, "--token-file", token)
	open := startServe(t, nil)
	waitFor(t, "the run is seen", func() bool { return len(s.state().Runs) == 1 && len(open.state().Runs) == 1 })
	pause := `{"do":"pause","name":"20261123-084512-k3f9ab","confirm":"20261123-084512-k3f9ab"}`
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+serveToken) }
	with := func(set ...func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			for _, f := range set {
				f(r)
			}
		}
	}
	header := func(k, v string) func(*http.Request) { return func(r *http.Request) { r.Header.Set(k, v) } }
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	for _, x := range []struct {
		name, method, path, body string
		set                      func(*http.Request)
		code                     int
	}{
		{"no token", "POST", "/api/control", pause, nil, 401},
		{"a wrong token", "POST", "/api/control", pause, header("Authorization", "Bearer "+strings.ToUpper(serveToken)),
			401},
		{"an empty token", "POST", "/api/control", pause, header("Authorization", "Bearer "), 401},
		{"the token as a password", "POST", "/api/control", pause, func(r *http.Request) {
			r.SetBasicAuth("x",
				serveToken)
		}, 401},
		{"the token in the address", "POST", "/api/control?token=" + serveToken, pause, nil, 401},
		{"the token in a cookie", "POST", "/api/control", pause, header("Cookie", "token="+serveToken), 401},
		{"another site, by Sec-Fetch-Site", "POST", "/api/control", pause, with(bearer,
			header("Sec-Fetch-Site", "cross-site")), 403},
		{"another port of this machine", "POST", "/api/control", pause, with(bearer,
			header("Sec-Fetch-Site", "same-site")), 403},
		{"another site, by Origin", "POST", "/api/control", pause, with(bearer, header("Origin", "https://evil.example")), 403},
		{"another site reads", "GET", "/api/state", "", with(header("Sec-Fetch-Site", "cross-site"),
			header("Sec-Fetch-Mode", "cors")), 403},
		{"another site frames", "GET", "/", "", with(header("Sec-Fetch-Site", "cross-site"),
			header("Sec-Fetch-Mode", "navigate"), header("Sec-Fetch-Dest", "iframe")), 403},
		{"a link from another site", "GET", "/", "", with(header("Sec-Fetch-Site", "cross-site"),
			header("Sec-Fetch-Mode", "navigate"), header("Sec-Fetch-Dest", "document")), 200},
		{"a rebound name", "POST", "/api/control", pause, with(bearer, host("evil.example")), 421},
		{"a rebound name reads", "GET", "/api/state", "", host("evil.example:8090"), 421},
		{"a name that begins like ours", "GET", "/api/state", "", host("localhost.evil.example"), 421},
		{"another address", "GET", "/api/state", "", host("10.1.2.3"), 421},
		{"localhost", "GET", "/api/state", "", host("LOCALHOST:8090"), 200},
		{"IPv6 loopback", "GET", "/api/state", "", host("[::1]:8090"), 200},
		{"no JSON", "POST", "/api/control", pause, with(bearer, header("Content-Type", "text/plain")), 400},
		{"not confirmed", "POST", "/api/control", `{"do":"pause","name":"20261123-084512-k3f9ab"}`, bearer, 400},
		{"an unknown field", "POST", "/api/control", `{"what":"pause"}`, bearer, 400},
		{"too long", "POST", "/api/control", `{"do":"` + strings.Repeat("x", 5000) + `"}`, bearer, 400},
		{"an unknown order", "POST", "/api/control", `{"do":"delete","name":"a","confirm":"a"}`, bearer, 422},
		{"no such run", "POST", "/api/control", `{"do":"pause","name":"nope","confirm":"nope"}`, bearer, 404},
		{"a folder's name", "POST", "/api/control", `{"do":"resume","name":"/etc","confirm":"/etc"}`, bearer, 404},
		{"no such worker", "POST", "/api/control", `{"do":"drain","name":"nope","confirm":"nope"}`, bearer, 404},
		{"an order by GET", "GET", "/api/control", "", bearer, 404},
		{"unlock with a wrong token", "POST", "/api/unlock", "{}", header("Authorization", "Bearer x"), 401},
		{"a job of no run", "GET", "/api/job?run=nope&job=x", "", nil, 404},
		{"jobs in no state", "GET", "/api/jobs?run=20261123-084512-k3f9ab&state=asleep", "", nil, 422},
		{"a file that is none of the page's", "GET", "/assets/..%2fserver.go", "", nil, 404},
	} {
		code, body, h := s.ask(x.method, x.path, x.body, x.set)
		if code != x.code {
			t.Errorf("%s: %d, want %d: %.200s", x.name, code, x.code, body)
		}
		if strings.Contains(body, serveToken) {
			t.Errorf("%s: the token is in the answer", x.name)
		}
		if csp := h.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") ||
			strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", x.name, csp)
		}
		if h.Get("Access-Control-Allow-Origin") != "" || h.Get("Set-Cookie") != "" {
			t.Errorf("%s: %v", x.name, h)
		}
	}
	if v := s.state(); v.Runs[0].State != "running" || !v.Controls {
		t.Errorf("after all that: %+v", v)
	}
	if code, body, _ := open.ask("POST", "/api/control", pause, bearer); code != 403 ||
		!strings.Contains(body, "--token-file") || open.state().Controls {
		t.Errorf("without --token-file: %d %s", code, body)
	}
	if code, body, _ := s.ask("POST", "/api/control", pause, bearer); code != 200 ||
		!strings.Contains(body, "is paused") {
		t.Errorf("with the token: %d %s", code, body)
	}
	if code, _, _ := s.ask("POST", "/api/unlock", "{}", bearer); code != 204 {
		t.Errorf("unlock: %d", code)
	}
	says(t, dispatcher(t, "status", "20261123-084512-k3f9ab").want(t, 0).stdout, "paused")

	short := filepath.Join(t.TempDir(), "short")
	writeFile(t, short, "short")
	says(t, dispatcher(t, "serve", "--token-file", short).want(t, 2).stderr, "16 or more")
	says(t, dispatcher(t, "serve", "--token-file", short+"er").want(t, 2).stderr, "--token-file")
	says(t, dispatcher(t, "serve", "--addr", "nowhere").want(t, 2).stderr, "--addr")
}

// TestServeBeforeNATS: the page is there before the server is, and refuses wrong
// credentials as every command does.
func TestServeBeforeNATS(t *testing.T) {
	t.Parallel()
	server, err := embedded.Start(t.Context(), embedded.Config{StoreDir: t.TempDir(), Port: freePort(t),
		Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	cfg := embedded.Config{StoreDir: t.TempDir(), Port: server.Port(), Token: server.Token(), Log: zerolog.Nop()}
	server.Shutdown()
	setenv(t, "SURPRISAL_NATS_URL", server.URL())
	setenv(t, "SURPRISAL_NATS_TOKEN", cfg.Token)
	s := startServe(t, nil)
	if v := s.state(); v.Link.OK || v.Link.Why == "" {
		t.Errorf("before NATS is there: %+v", v.Link)
	}
	if code, body, _ := s.ask("GET", "/api/dead", "", nil); code != 503 {
		t.Errorf("a list: %d %s", code, body)
	}
	if server, err = embedded.Start(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	waitFor(t, "NATS is reached", func() bool { return s.state().Link.OK })
	setenv(t, "SURPRISAL_NATS_TOKEN", "another-token-of-16-characters")
	says(t, dispatcher(t, "serve", "--addr", "127.0.0.1:0").want(t, 2).stderr, "rejects the credentials")
}

// TestServeARealRun: a person watches real workers from a browser, sees why a job
// died, mends it, and retries; all by keyboard.
func TestServeARealRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startQueue(t)
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(60), 10)
	touched := filepath.Join(in, "b.parquet")
	writeParquet(t, touched, manyTexts(7), 10)
	run := strings.TrimSpace(dispatcher(t, "submit", "--model", demoModel, "--out", out, "--job-tokens", "2000",
		in).want(t, 0).stdout)
	was, err := os.Stat(touched)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(touched, time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	s := startServe(t, []string{"SURPRISAL_SERVE_TOKEN=" + serveToken})
	p := newPage(t, s.url)
	p.open("", 1280, "light")
	p.until("document.querySelector('.run a.id')?.textContent === '" + run + "'")

	// Pause, by keyboard: the token is asked for, then whether it is meant.
	p.until("[...document.querySelectorAll('.run button')].some((b) => b.textContent.startsWith('Pause'))")
	_ = eval[bool](p, button("run", "Pause")+".focus(); true")
	p.keys("\r")
	p.until("document.activeElement.id === 'token'")
	p.accessible("asking for the token")
	p.Away.Store(true) // a refusal shows in the browser's log
	p.keys("a wrong one, too long\r")
	p.until("document.querySelector('dialog .bad').textContent.includes('token')")
	_ = eval[bool](p, "document.getElementById('token').value = ''; true")
	p.keys(serveToken + "\r")
	p.until("document.querySelector('dialog h2')?.textContent.includes('Pause " + run + "')")
	p.Away.Store(false)
	p.accessible("asking whether it is meant")
	p.shot("ask")
	p.keys("\t\r")
	p.until("document.querySelector('.run .badge').textContent === 'paused'")
	if st := dispatcher(t, "status", run).want(t, 0).stdout; !strings.Contains(st, "paused") {
		t.Errorf("status: %s", st)
	}
	// Escape says no.
	_ = eval[bool](p, button("run", "Cancel")+".focus(); true")
	p.keys("\r")
	p.until("document.querySelector('dialog').open")
	p.keys("\x1b")
	p.until("!document.querySelector('dialog').open")
	_ = eval[bool](p, button("run", "Resume")+".focus(); true")
	p.keys("\r")
	p.until("document.querySelector('dialog').open")
	p.keys("\t\r")
	p.until("document.querySelector('.run .badge').textContent === 'running'")

	worker, wr := start(t, nil, "worker", "--log-format", "json", "--id", "w1")
	waiter, ww := start(t, nil, "dispatcher", "wait", "--json", run)
	p.until("document.querySelector('.workers tbody tr .id')?.textContent === 'w1'")
	p.until("document.getElementById('t-dead').textContent !== '0'")
	_ = eval[bool](p, "document.querySelector('#tile-dead a').click(); true")
	p.until("document.querySelector('.letter')?.innerText.includes('has changed since')")
	_ = eval[bool](p, "document.querySelector('.letter a.id').click(); true")
	p.until("document.querySelector('.detail')?.innerText.includes('b.parquet') && " +
		"document.querySelector('.detail')?.innerText.includes('Attempts')")
	says(t, p.text(), "w1", "dead", "missing")
	if err := os.Chtimes(touched, time.Now(), was.ModTime()); err != nil {
		t.Fatal(err)
	}
	if sum := parseSummary(t, wait(t, waiter, ww).want(t, 1)); len(sum.DeadJobs) == 0 || sum.Documents != 60 {
		t.Errorf("%+v", sum)
	}
	_ = eval[bool](p, button("detail", "Retry")+".click(); true")
	p.until("document.querySelector('dialog').open")
	p.keys("\t\r")
	p.until("document.getElementById('said').innerText.includes('requeued')")
	if sum := parseSummary(t, dispatcher(t, "wait", "--json", run).want(t, 0)); !sum.Complete || sum.Documents != 67 {
		t.Errorf("%+v", sum)
	}
	_ = eval[bool](p, "location.hash = '#/'; true")
	p.until("document.querySelector('.run .badge').textContent === 'complete'")
	p.Quiet()
	// The worker is drained from the page, and leaves it.
	_ = eval[bool](p, button("workers", "Drain")+".click(); true")
	p.until("document.querySelector('dialog').open")
	p.keys("\t\r")
	wait(t, worker, wr).want(t, 0)
	p.until("!document.querySelector('.workers tbody tr')")
	p.Quiet()
}

// keys types.
func (p *browserPage) keys(s string) {
	p.t.Helper()
	p.ok(chromedp.Do(p.Ctx, chromedp.KeyEvent(s)))
}

// TestServeHostileWords: what runs, workers, jobs and letters say of themselves is
// text, whatever is in it.
func TestServeHostileWords(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	bad := `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script></script>` + "\u202e" +
		`javascript:alert(1)`
	f.bad = bad
	m := f.run("20261123-084512-k3f9ab", time.Now(), 1, 5, record.RunRunning, map[record.State]int{record.StateDead: 2,
		record.StateFailed: 1})
	f.work(2, m.Jobs()[3:], time.Hour)
	s := startServe(t, nil)
	waitFor(t, "all is seen", func() bool { v := s.state(); return v.Fleet.Dead == 2 && v.Fleet.Workers == 2 })
	p := newPage(t, s.url)
	for _, route := range []string{"", "#/run/20261123-084512-k3f9ab", "#/run/20261123-084512-k3f9ab/dead",
		"#/run/20261123-084512-k3f9ab/job/" + m.Jobs()[0].ID, "#/dead"} {
		p.open(route, 1280, "light")
		p.until("document.body.innerText.includes('onerror=')")
		if eval[bool](p, `window.pwned === 1 ||
			document.querySelector('main img, main script, a[href^="javascript"]') !== null`) {
			t.Errorf("%s: words became markup", route)
		}
	}
	for _, route := range []string{"#/run/nope", "#/run/20261123-084512-k3f9ab/job/nope", "#/run/%3Cb%3E/x",
		"#/nowhere", "#/run/20261123-084512-k3f9ab/asleep/99"} {
		p.Away.Store(true) // refused requests are logged
		p.open(route, 390, "dark")
		p.until("document.getElementById('link').classList.contains('on')")
	}
	p.Away.Store(false)
	p.Quiet()
}

// TestServeComesBack: the page outlives the program that serves it.
func TestServeComesBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	f.run("20261123-084512-k3f9ab", time.Now(), 1, 5, record.RunRunning, nil)
	s := startServe(t, nil, "--addr", fmt.Sprintf("127.0.0.1:%d", freePort(t))) // it is there again below
	p := newPage(t, s.url)
	p.open("", 1280, "light")
	p.until("document.getElementById('link').classList.contains('on') && document.querySelector('.run')")
	p.Away.Store(true)
	s.stop(os.Interrupt)
	// It may say first that NATS is away: serve let go of it before it ended.
	p.until("!document.getElementById('outage').hidden && " +
		"document.getElementById('outage').innerText.includes('No answer from dispatcher serve')")
	says(t, p.text(), "No answer from dispatcher serve", "20261123-084512-k3f9ab")
	_ = startServe(t, nil, "--addr", strings.TrimPrefix(s.url, "http://"))
	p.until("document.getElementById('outage').hidden && document.getElementById('link').classList.contains('on')")
	p.Away.Store(false)
	p.Quiet()
}
