package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	prometheusDir = "../deploy/prometheus"
	dashboardsDir = "../deploy/grafana/dashboards"
)

// prometheusTool finds prometheus or promtool; without it the test is skipped.
func prometheusTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("SURPRISAL_REQUIRE_PROMETHEUS") != "" {
			t.Fatalf("SURPRISAL_REQUIRE_PROMETHEUS is set and there is no %s: make prometheus", name)
		}
		t.Skipf("SKIPPED: %s is not on PATH: make prometheus", name)
	}
	return path
}

// TestPromtool: what is shipped for Prometheus is valid, and its alerts fire when they
// are to, and not otherwise.
func TestPromtool(t *testing.T) {
	promtool := prometheusTool(t, "promtool")
	tests, err := filepath.Glob(prometheusDir + "/*_test.yml")
	if err != nil || len(tests) == 0 {
		t.Fatalf("no tests of rules: %v", err)
	}
	for _, args := range [][]string{{"check", "config", prometheusDir + "/prometheus.yml"},
		append([]string{"test", "rules"}, tests...)} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil ||
			strings.Contains(string(out), "FAILED") {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	alerts, err := os.ReadFile(prometheusDir + "/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	test, err := os.ReadFile(prometheusDir + "/alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(alerts), -1) {
		if !regexp.MustCompile(`alertname: ` + m[1] + `\n +eval_time: .*\n +exp_alerts:\n`).Match(test) {
			t.Errorf("no test has %s fire", m[1])
		}
	}
}

// panel is a dashboard's panel, or row of panels.
type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct{ RefID, Expr string }
	Datasource  struct{ Type, UID string }
	Description string
}

type dashboard struct {
	UID, Title  string
	Panels      []panel
	Annotations struct{ List []struct{ Expr string } }
	Templating  struct {
		List []struct{ Name, Type, Definition string }
	}
}

func dashboards(t *testing.T) []dashboard {
	t.Helper()
	files, err := filepath.Glob(dashboardsDir + "/*.json")
	if err != nil || len(files) != 2 {
		t.Fatalf("%d dashboards: %v", len(files), err)
	}
	var all []dashboard
	for _, path := range files {
		var d dashboard
		readJSON(t, path, &d)
		all = append(all, d)
	}
	return all
}

// queries are all that a dashboard asks Prometheus for, by where.
func (d dashboard) queries() map[string]string {
	q := map[string]string{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			q[d.UID+": "+p.Title+" "+target.RefID] = target.Expr
		}
	}
	return q
}

// docsMetrics are the rows of docs/metrics.md: name, type, labels.
func docsMetrics(t *testing.T) [][]string {
	t.Helper()
	docs, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(surprisal_[a-z_]+)` \\| ([a-z]+) \\| ([a-zA-Z_, ]*)\\|")
	return row.FindAllStringSubmatch(string(docs), -1)
}

// TestDashboardsAndRulesUseWhatThereIs: they name no metric that docs/metrics.md does
// not, panels don't overlap, and links between dashboards lead somewhere.
func TestDashboardsAndRulesUseWhatThereIs(t *testing.T) {
	known := map[string]bool{}
	for _, m := range docsMetrics(t) {
		known[m[1]] = true
		if m[2] == "histogram" {
			known[m[1]+"_bucket"], known[m[1]+"_sum"], known[m[1]+"_count"] = true, true, true
		}
	}
	rules, err := os.ReadFile(prometheusDir + "/recording.yml")
	if err != nil {
		t.Fatal(err)
	}
	recorded := map[string]bool{}
	for _, m := range regexp.MustCompile(`record: (\S+)`).FindAllStringSubmatch(string(rules), -1) {
		recorded[m[1]] = true
	}
	alerts, err := os.ReadFile(prometheusDir + "/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{"recording.yml": string(rules), "alerts.yml": string(alerts)}
	uids := map[string]bool{}
	for _, d := range dashboards(t) {
		uids[d.UID] = true
		for where, expr := range d.queries() {
			texts[where] = expr
		}
		ids, taken := map[int]bool{}, map[[2]int]string{}
		for _, p := range d.Panels {
			if ids[p.ID] {
				t.Errorf("%s: two panels have the id %d", d.UID, p.ID)
			}
			ids[p.ID] = true
			if p.Type != "row" && (len(p.Targets) == 0 || p.Datasource.UID != "${datasource}") {
				t.Errorf("%s: %s asks nothing, or not the chosen Prometheus", d.UID, p.Title)
			}
			if p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("%s: %s is too wide", d.UID, p.Title)
			}
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					if taken[at] != "" {
						t.Fatalf("%s: %s and %s overlap", d.UID, p.Title, taken[at])
					}
					taken[at] = p.Title
				}
			}
		}
	}
	if !uids["surprisal-fleet"] || !uids["surprisal-run"] {
		t.Errorf("dashboards %v link to each other by other names", uids)
	}
	for where, text := range texts {
		for _, name := range regexp.MustCompile(`[a-z_:]*surprisal_[a-z0-9_:]+`).FindAllString(text, -1) {
			if strings.Contains(name, ":") && !recorded[name] || !strings.Contains(name, ":") && !known[name] {
				t.Errorf("%s names %s, which there is not", where, name)
			}
		}
	}
}

// prometheusServer is a running Prometheus with the shipped configuration.
type prometheusServer struct {
	t     *testing.T
	url   string
	began time.Time
}

// shorter has the shipped files wait for seconds where they wait for minutes.
var shorter = []struct {
	find *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(?m)^( +for): \S+$`), "$1: 1s"},
	{regexp.MustCompile(`(?m)^( +(scrape|evaluation)_interval): \S+$`), "$1: 1s"},
}

func startPrometheus(t *testing.T, workers, dispatchers []string) *prometheusServer {
	t.Helper()
	program := prometheusTool(t, "prometheus")
	dir := t.TempDir()
	for _, name := range []string{"prometheus.yml", "recording.yml", "alerts.yml"} {
		b, err := os.ReadFile(filepath.Join(prometheusDir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range shorter {
			b = s.find.ReplaceAll(b, []byte(s.with))
		}
		writeFile(t, filepath.Join(dir, name), string(b))
	}
	if err := os.Mkdir(filepath.Join(dir, "targets"), 0o777); err != nil {
		t.Fatal(err)
	}
	for name, targets := range map[string][]string{"workers.yml": workers, "dispatchers.yml": dispatchers} {
		list, err := json.Marshal(targets)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "targets", name), fmt.Sprintf("- { targets: %s, labels: { queue: main } }\n",
			list))
	}
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	cmd, r := start(t, nil, program, "--config.file", filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path",
		filepath.Join(dir, "data"),
		"--web.listen-address", addr, "--log.level", "warn")
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		wait(t, cmd, r)
	})
	p := &prometheusServer{t: t, url: "http://" + addr, began: time.Now()}
	waitFor(t, "Prometheus", func() bool {
		resp, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return p
}

// ask asks its HTTP API, which must answer without error.
func (p *prometheusServer) ask(path string, form url.Values, data any) error {
	resp, err := http.Get(p.url + path + "?" + form.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Status, Error string
		Warnings      []string
		Data          json.RawMessage
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return fmt.Errorf("%s: %w", b, err)
	}
	if answer.Status != "success" || len(answer.Warnings) > 0 {
		return fmt.Errorf("%s: %s %v", answer.Status, answer.Error, answer.Warnings)
	}
	return json.Unmarshal(answer.Data, data)
}

// numbers counts the values that a query had since Prometheus began, NaN excepted.
func (p *prometheusServer) numbers(query string) (n int, err error) {
	var data struct {
		Result []struct{ Values [][2]any }
	}
	now := time.Now()
	err = p.ask("/api/v1/query_range", url.Values{
		"query": {query}, "start": {strconv.FormatInt(p.began.Unix(), 10)}, "end": {strconv.FormatInt(now.Unix(), 10)},
		"step": {"1"},
	}, &data)
	for _, series := range data.Result {
		for _, v := range series.Values {
			text, _ := v[1].(string)
			if x, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(x) {
				n++
			}
		}
	}
	return n, err
}

// some is numbers, asked again for a while where there are none: what the last scrape
// tells may be on its way through the rules.
func (p *prometheusServer) some(query string) (n int, err error) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(250 * time.Millisecond) {
		if n, err = p.numbers(query); err != nil || n > 0 || time.Now().After(deadline) {
			return n, err
		}
	}
}

// firing are the alerts that fire, by name.
func (p *prometheusServer) firing() map[string]int {
	p.t.Helper()
	var data struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	if err := p.ask("/api/v1/alerts", nil, &data); err != nil {
		p.t.Fatal(err)
	}
	names := map[string]int{}
	for _, a := range data.Alerts {
		if a.State == "firing" {
			names[a.Labels["alertname"]]++
		}
	}
	return names
}

// rules are all rules' queries, by name; each must be well.
func (p *prometheusServer) rules() map[string]string {
	p.t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Query, Health, LastError, Type string }
		}
	}
	if err := p.ask("/api/v1/rules", nil, &data); err != nil {
		p.t.Fatal(err)
	}
	queries := map[string]string{}
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			queries[r.Type+" "+r.Name] = r.Query
			if r.Health != "ok" {
				p.t.Errorf("rule %s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	return queries
}

// gpuPage is a page of metrics as docs/metrics.md has a GPU's worker tell them, which
// no machine without a GPU can. Counters count its scrapes.
func gpuPage(t *testing.T) string {
	t.Helper()
	rows, scrapes := docsMetrics(t), atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		count := scrapes.Add(1)
		for _, m := range rows {
			name, kind := m[1], m[2]
			of := []string{"surprisal_nvml_up", "surprisal_forward_tokens_total", "surprisal_engine_peak_flops",
				"surprisal_model_flops_utilization_ratio", "surprisal_tokens_per_joule"}
			if !strings.HasPrefix(name, "surprisal_gpu_") && !slices.Contains(of, name) {
				continue
			}
			var labels []string
			for _, l := range strings.Fields(strings.ReplaceAll(m[3], ",", " ")) {
				value := l
				if l == "type" {
					value = "uncorrected"
				}
				labels = append(labels, fmt.Sprintf("%s=%q", l, value))
			}
			value := int64(1)
			if kind == "counter" {
				value = count
			} else if name == "surprisal_gpu_row_remap_failed" {
				value = 0
			}
			_, _ = fmt.Fprintf(w, "# TYPE %s %s\n%s{%s} %d\n", name, kind, name, strings.Join(labels, ","), value)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// TestPrometheusWatches: the shipped configuration on a real Prometheus that scrapes
// two workers and dispatcher serve. Alerts fire when a worker is killed and a job is
// poisoned, and clear after; every query of rules and dashboards is answered with data.
func TestPrometheusWatches(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short: waits for an ack wait")
	}
	prometheusTool(t, "prometheus")
	dir := t.TempDir()
	nats := startNATS(t, writeFile(t, filepath.Join(dir, "nats.conf"), fmt.Sprintf(`jetstream { store_dir: %q }
accounts { S { jetstream: { max_file: 1G, max_mem: 64M }, users: [ { user: u, password: p } ] } }
no_auth_user: u
`, filepath.Join(dir, "js"))), nil)
	env := []string{"SURPRISAL_NATS_URL=nats://" + nats.addr()}

	// Two files more than the demo's; the first seems another when its job is taken.
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	poison := filepath.Join(in, "000-poison.parquet")
	writeParquet(t, poison, manyTexts(10), 10)
	writeParquet(t, filepath.Join(in, "more.parquet"), manyTexts(600), 50)
	demo, err := filepath.Glob(demoCorpus + "/*.parquet")
	if err != nil || len(demo) == 0 {
		t.Fatalf("no demo corpus: %v", err)
	}
	for _, path := range demo {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(in, filepath.Base(path)), string(b))
	}
	run := strings.TrimSpace(runProgram(t, env, "dispatcher", "submit", "--engine", "cpu", "--model", demoModel,
		"--out", out,
		"--job-tokens", "10000", "--ack-wait", "15s", in).want(t, 0).stdout)
	info, err := os.Stat(poison)
	if err != nil {
		t.Fatal(err)
	}
	touch := func(at time.Time) {
		t.Helper()
		if err := os.Chtimes(poison, at, at); err != nil {
			t.Fatal(err)
		}
	}
	touch(info.ModTime().Add(-time.Hour))

	ports := []int{freePort(t), freePort(t)}
	worker := func(i int) (*exec.Cmd, *result) {
		return start(t, env, "worker", "--engine", "cpu", "--threads", "1", "--id", fmt.Sprintf("w%d", i),
			"--metrics-addr", fmt.Sprintf(":%d", ports[i]))
	}
	ends := func(cmd *exec.Cmd, r *result) {
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			wait(t, cmd, r)
		})
	}
	page := freePort(t)
	ends(start(t, env, "dispatcher", "serve", "--addr", "127.0.0.1:0", "--metrics-addr", fmt.Sprintf(":%d", page)))
	local := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	p := startPrometheus(t, []string{local(ports[0]), local(ports[1]), gpuPage(t)}, []string{local(page)})
	ends(worker(0))
	victim, vr := worker(1)

	fires := func(name string, want bool, within time.Duration) {
		t.Helper()
		began := time.Now()
		for deadline := began.Add(within); (p.firing()[name] > 0) != want; time.Sleep(250 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s fires: %v, after %v; want %v; firing: %v", name, !want, within, want, p.firing())
			}
		}
		t.Logf("%s fires: %v, after %.1f s", name, want, time.Since(began).Seconds())
	}
	fires("SurprisalDeadLetters", true, 3*time.Minute)
	waitFor(t, "a worker that has committed and holds more", func() bool {
		m := scrape(t, ports[1])
		return value(m, "surprisal_jobs_total", "state", "done") > 0 && value(m, "surprisal_jobs_in_hand") > 0
	})
	time.Sleep(3 * time.Second) // scraped before and after
	// A scrape that a busy machine has wait for its second fires for a moment.
	waitFor(t, "nothing but dead letters fires with all well", func() bool {
		n := p.firing()
		t.Logf("with all well, %v fire", n)
		return n["SurprisalDown"] == 0 && n["SurprisalHeartbeatLate"] == 0 && n["SurprisalUnwatched"] == 0 &&
			n["SurprisalNoCommit"] == 0
	})
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wait(t, victim, vr)
	fires("SurprisalDown", true, 2*time.Minute)
	fires("SurprisalHeartbeatLate", true, 3*time.Minute)

	touch(info.ModTime())
	ends(worker(1))
	runProgram(t, env, "dispatcher", "retry", run).want(t, 0)
	fires("SurprisalDown", false, 2*time.Minute)
	fires("SurprisalHeartbeatLate", false, 3*time.Minute)
	fires("SurprisalDeadLetters", false, 3*time.Minute)
	sum := parseSummary(t, runProgram(t, env, "dispatcher", "wait", "--json", run).want(t, 0))

	// What the run came to is what Prometheus has of it.
	waitFor(t, "the run's last documents", func() bool {
		n, err := p.numbers(fmt.Sprintf("surprisal_run_documents{run=%q} == %d and surprisal_run_rows == %d", run,
			sum.Documents, sum.Documents))
		return err == nil && n > 0
	})
	time.Sleep(2 * time.Second) // rules are evaluated once more
	for name, query := range p.rules() {
		ask := p.numbers // an alert may have nothing to tell
		if strings.HasPrefix(name, "recording") {
			ask = p.some
		}
		n, err := ask(query)
		if err != nil || n == 0 && strings.HasPrefix(name, "recording") {
			t.Errorf("%s: %d values, %v\n%s", name, n, err, query)
		}
	}
	asked := 0
	with := strings.NewReplacer("$queue", ".*", "$worker", ".*", "$run", run, "$__rate_interval", "1m")
	for _, d := range dashboards(t) {
		for where, query := range d.queries() {
			asked++
			if n, err := p.some(with.Replace(query)); err != nil || n == 0 {
				t.Errorf("%s: %d values, %v\n%s", where, n, err, query)
			}
		}
		for _, a := range d.Annotations.List {
			if n, err := p.some(with.Replace(a.Expr)); err != nil || n == 0 {
				t.Errorf("%s: annotations: %d values, %v", d.UID, n, err)
			}
		}
		for _, v := range d.Templating.List {
			m := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`).FindStringSubmatch(v.Definition)
			if v.Type == "query" && m == nil {
				t.Errorf("%s: %s is asked for by %q", d.UID, v.Name, v.Definition)
			} else if m != nil {
				if n, err := p.some(fmt.Sprintf(`%s and on () vector(1) unless %s{%s=""}`, with.Replace(m[1]),
					nameOf(m[1]), m[2])); err != nil || n == 0 {
					t.Errorf("%s: no values for %s: %v", d.UID, v.Name, err)
				}
			}
		}
	}
	for _, m := range docsMetrics(t) {
		name := m[1]
		if m[2] == "histogram" {
			name += "_count"
		}
		if n, err := p.some(name); err != nil || n == 0 {
			t.Errorf("Prometheus has no %s: %v", name, err)
		}
	}
	t.Logf("%d queries of dashboards", asked)
}

func nameOf(selector string) string {
	name, _, _ := strings.Cut(selector, "{")
	return name
}
