package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/rs/zerolog"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/score"
)

// scrape reads a program's metrics; nil while it does not answer, or where it ends
// in the middle of its answer.
func scrape(t *testing.T, port int) map[string]*dto.MetricFamily {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value adds up the series of a counter, a gauge or a histogram's count that have
// the label, if one is named.
func value(families map[string]*dto.MetricFamily, name string, label ...string) float64 {
	sum := 0.0
	for _, m := range families[name].GetMetric() {
		has := len(label) == 0
		for _, l := range m.GetLabel() {
			has = has || l.GetName() == label[0] && l.GetValue() == label[1]
		}
		if has {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// answers waits until a path of a program answers with a code, and gives the body.
func answers(t *testing.T, port int, path string, code int) string {
	t.Helper()
	last := ""
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
		if err != nil {
			last = err.Error()
			continue
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil && resp.StatusCode == code {
			return string(b)
		}
		last = resp.Status + " " + string(b)
	}
	t.Fatalf("%s does not answer with %d: %s", path, code, last)
	return ""
}

// absentOnCPU are the metrics of docs/metrics.md that a CPU and a server without a
// limit have nothing to tell of.
var absentOnCPU = []string{
	"surprisal_engine_peak_flops", "surprisal_model_flops_utilization_ratio", "surprisal_tokens_per_joule",
	"surprisal_store_limit_bytes",
}

// TestMetricsAreTotals: what two workers count is what the run's files come to, to
// the last byte, and both programs have every metric that docs/metrics.md lists.
func TestMetricsAreTotals(t *testing.T) {
	t.Parallel()
	conf := filepath.Join(t.TempDir(), "nats.conf")
	writeFile(t, conf, "jetstream { store_dir: \""+t.TempDir()+"\" }\n")
	nats := startNATS(t, conf, nil)
	env := []string{"SURPRISAL_NATS_URL=nats://" + nats.addr()}
	ports := []int{freePort(t), freePort(t)}
	for i, port := range ports {
		cmd, r := start(t, env, "worker", "--engine", "cpu", "--threads", "1", "--id", fmt.Sprintf("w%d", i),
			"--metrics-addr", fmt.Sprintf(":%d", port))
		t.Cleanup(func() {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			if wait(t, cmd, r); r.code != 0 {
				t.Errorf("worker ended with %d:\n%s", r.code, r.stderr)
			}
		})
	}
	waitFor(t, "a worker that is not ready for want of a dispatcher", func() bool {
		return strings.Contains(answers(t, ports[0], "/readyz", http.StatusServiceUnavailable),
			"waiting for a dispatcher")
	})
	// Both are to be there before there is work: the first would do it all otherwise.
	client, err := jobs.Connect(t.Context(), conn.Config{URLs: []string{"nats://" + nats.addr()}, Timeout: time.Minute, Log: zerolog.Nop()})
	must(t, err)
	must(t, client.Setup(t.Context(), jobs.Topology{}))
	client.Close()
	for _, port := range ports {
		answers(t, port, "/readyz", http.StatusOK)
	}
	page := freePort(t)
	server, sr := start(t, env, "dispatcher", "serve", "--addr", "127.0.0.1:0", "--metrics-addr",
		fmt.Sprintf(":%d", page))
	t.Cleanup(func() {
		if err := server.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		wait(t, server, sr)
	})
	out := filepath.Join(t.TempDir(), "out")
	submitted := runProgram(t, env, "dispatcher", "submit", "--engine", "cpu", "--model", demoModel, "--out", out,
		"--job-tokens", "8000", demoCorpus+"/001_00000.parquet").want(t, 0)
	run := strings.TrimSpace(submitted.stdout)
	port := freePort(t)
	cmd, r := start(t, env, "dispatcher", "wait", "--json", "--metrics-addr", fmt.Sprintf("127.0.0.1:%d", port), run)
	dispatcher := map[string]*dto.MetricFamily{}
	told := 0.0 // jobs
	for alive(cmd.Process.Pid) {
		if now := scrape(t, port); now != nil {
			for name, f := range now {
				dispatcher[name] = f
			}
			if n := value(now, "surprisal_run_jobs", "run", run); n > 0 {
				told = n
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	wait(t, cmd, r).want(t, 0)
	sum := parseSummary(t, r)
	var m score.Manifest
	readJSON(t, filepath.Join(out, score.ManifestName), &m)
	var success struct{ Bytes int64 }
	readJSON(t, filepath.Join(out, score.SuccessName), &success)

	w := make([]map[string]*dto.MetricFamily, len(ports))
	waitFor(t, "workers that hold nothing: the last job is in hand until its ack", func() bool {
		held := 0.0
		for i, port := range ports {
			w[i] = scrape(t, port)
			if w[i]["surprisal_jobs_in_hand"] == nil {
				return false
			}
			held += value(w[i], "surprisal_jobs_in_hand")
		}
		return held == 0
	})
	for _, c := range []struct {
		want  int64
		name  string
		label []string
	}{
		{sum.Documents - sum.FailedRows, "surprisal_documents_total", []string{"result", "scored"}},
		{sum.FailedRows, "surprisal_documents_total", []string{"result", "failed"}},
		{sum.Tokens, "surprisal_tokens_total", nil},
		{success.Bytes, "surprisal_bytes_total", nil},
		{int64(m.JobCount()), "surprisal_jobs_total", []string{"state", "done"}},
		{0, "surprisal_jobs_total", []string{"state", "dead"}},
		{sum.Documents - sum.FailedRows, "surprisal_document_perplexity", nil},
		{sum.Tokens, "surprisal_forward_tokens_total", nil},
		{int64(m.JobCount()), "surprisal_deliveries_total", nil},
		{0, "surprisal_jobs_in_hand", nil},
	} {
		a, b := value(w[0], c.name, c.label...), value(w[1], c.name, c.label...)
		if int64(a+b) != c.want {
			t.Errorf("%s %v: %g and %g, the run has %d", c.name, c.label, a, b, c.want)
		}
		if c.name == "surprisal_tokens_total" && (a == 0 || b == 0) {
			t.Errorf("one worker did it all: %g and %g tokens", a, b)
		}
	}
	if told != float64(m.JobCount()) {
		t.Errorf("the dispatcher tells of %g jobs of %d", told, m.JobCount())
	}
	// serve goes on, and has what the run came to.
	var served map[string]*dto.MetricFamily
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		served = scrape(t, page)
		if value(served, "surprisal_run_tokens", "run", run) == float64(sum.Tokens) &&
			value(served, "surprisal_run_documents", "run", run) == float64(sum.Documents) &&
			value(served, "surprisal_run_jobs", "state", "done") == float64(m.JobCount()) &&
			value(served, "surprisal_run_jobs") == float64(m.JobCount()) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("serve tells of %g tokens, %g documents, %g jobs done; the run has %d, %d, %d",
				value(served, "surprisal_run_tokens"),
				value(served, "surprisal_run_documents"), value(served, "surprisal_run_jobs", "state", "done"),
				sum.Tokens, sum.Documents, m.JobCount())
		}
	}
	docs, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile("(?m)^\\| `(surprisal_[a-z_]+)` ").FindAllStringSubmatch(string(docs), -1) {
		if strings.HasPrefix(name[1], "surprisal_gpu_") || slices.Contains(absentOnCPU, name[1]) {
			continue
		}
		if w[0][name[1]] == nil && dispatcher[name[1]] == nil {
			t.Errorf("neither program tells %s", name[1])
		}
	}
}
