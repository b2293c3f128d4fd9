package metrics

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestServer(t *testing.T) {
	w := NewWorker("v1")
	why := []string{"no NATS server answers", "draining"}
	s, err := Serve(w.Set, ServerConfig{Address: ":0", Ready: func() []string { return why }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if !strings.HasPrefix(s.Addr(), "127.0.0.1:") {
		t.Fatalf("listens on %s", s.Addr())
	}
	url := "http://" + s.Addr()
	if code, body := get(t, url+"/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	if code, body := get(t, url+"/readyz"); code != 503 || body != "no NATS server answers\ndraining\n" {
		t.Errorf("/readyz: %d %q", code, body)
	}
	why = nil
	if code, body := get(t, url+"/readyz"); code != 200 || body != "ok\n" {
		t.Errorf("/readyz: %d %q", code, body)
	}
	if code, _ := get(t, url+"/debug/pprof/"); code != 404 {
		t.Errorf("/debug/pprof/ without being asked for: %d", code)
	}
	scraped := 0
	w.BeforeScrape(func() { scraped++ })
	w.Committed(3, 1, 40, 100)
	w.Efficiency(-1, -1, 2.5)
	_, body := get(t, url+"/metrics")
	for _, line := range []string{
		`surprisal_build_info{goversion="`, `surprisal_documents_total{result="scored"} 2`,
		`surprisal_documents_total{result="failed"} 1`,
		"surprisal_tokens_total 40", "surprisal_bytes_total 100", `surprisal_jobs_total{state="done"} 1`,
		"surprisal_tokens_per_joule 2.5",
		"go_goroutines ", "process_cpu_seconds_total ",
	} {
		if !strings.Contains(body, "\n"+line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	if strings.Contains(body, "\nsurprisal_engine_peak_flops") ||
		strings.Contains(body, "\nsurprisal_model_flops_utilization_ratio") {
		t.Error("/metrics has what is not known")
	}
	if scraped != 1 {
		t.Errorf("brought up to date %d times", scraped)
	}
}

func TestPprof(t *testing.T) {
	s, err := Serve(NewWorker("v").Set, ServerConfig{Address: "localhost:0", Pprof: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if code, body := get(t, "http://"+s.Addr()+"/debug/pprof/goroutine?debug=1"); code != 200 ||
		!strings.Contains(body, "goroutine profile") {
		t.Errorf("%d %.80q", code, body)
	}
}

func TestAddress(t *testing.T) {
	for given, want := range map[string]string{
		":9464": "127.0.0.1:9464", "0.0.0.0:1": "0.0.0.0:1", "[::1]:7": "[::1]:7", "9464": "", "host": "", "": "",
	} {
		if got, err := Address(given); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", given, got, err, want)
		}
	}
	for _, c := range []struct{ given, want string }{{":9464", "127.0.0.1:9466"}, {":0", "127.0.0.1:0"},
		{"h:http", ""}} {
		if got, err := Beside(c.given, 2); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("beside %q: %q, %v, want %q", c.given, got, err, c.want)
		}
	}
}

func TestRunsAreBounded(t *testing.T) {
	d := NewDispatcher("v")
	for i := range 3 * maxRuns {
		d.SetRun(Run{ID: string(rune('a' + i)), Jobs: map[string]int{"done": i}, Left: time.Second,
			LastCommit: time.Now()})
	}
	families, err := d.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "surprisal_run_") {
			seen++
			if n := len(f.GetMetric()); n != maxRuns && n != 6*maxRuns {
				t.Errorf("%s has %d series", f.GetName(), n)
			}
		}
	}
	if seen != 8 {
		t.Errorf("%d metrics of runs", seen)
	}
}
