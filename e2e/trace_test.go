package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// span is one that a collector got, and from which service.
type span struct {
	*spans.Span
	service string
}

func (s span) text(key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

func (s span) number(key string) (n int64) {
	for _, a := range s.Attributes {
		if a.Key == key {
			n = a.Value.GetIntValue()
		}
	}
	return n
}

// startCollector takes spans as an OpenTelemetry collector does, over HTTP.
func startCollector(t *testing.T) (env []string, got func() []span) {
	t.Helper()
	var mu sync.Mutex
	var list []span
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &req)
		}
		if err != nil || r.Method != "POST" || r.URL.Path != "/v1/traces" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range req.ResourceSpans {
			service := ""
			for _, a := range rs.Resource.Attributes {
				if a.Key == "service.name" {
					service = a.Value.GetStringValue()
				}
			}
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					list = append(list, span{s, service})
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(srv.Close)
	return []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + srv.URL}, func() []span {
		mu.Lock()
		defer mu.Unlock()
		return list
	}
}

// oneTrace checks that all spans are of one trace under one run, that each job has its
// phases, and that as many tokens went through forward passes as the run has.
func oneTrace(t *testing.T, list []span, run string, jobsWanted int, tokens int64) {
	t.Helper()
	byID := map[string]span{}
	var root span
	for _, s := range list {
		byID[string(s.SpanId)] = s
		if s.Name == "run" {
			if root.Span != nil || len(s.ParentSpanId) != 0 {
				t.Error("more than one run, or one with a parent")
			}
			root = s
		}
	}
	if root.Span == nil || root.service != "surprisal-dispatcher" || root.text("surprisal.run") != run {
		t.Fatalf("the run's span: %+v", root)
	}
	phases := map[string]map[string]int{}
	var forward int64
	for _, s := range list {
		if string(s.TraceId) != string(root.TraceId) {
			t.Errorf("%s is of another trace", s.Name)
		}
		if s.EndTimeUnixNano < s.StartTimeUnixNano {
			t.Errorf("%s ends before it begins", s.Name)
		}
		switch parent := byID[string(s.ParentSpanId)]; s.Name {
		case "run":
		case "job":
			if parent.Span != root.Span || s.service != "surprisal-worker" || s.text("surprisal.run") != run ||
				s.text("surprisal.file") == "" {
				t.Errorf("job: %+v", s)
			}
		case "read", "tokenize", "forward", "write":
			if parent.Span == nil || parent.Name != "job" {
				t.Fatalf("%s is under %+v", s.Name, parent)
			}
			if s.StartTimeUnixNano < parent.StartTimeUnixNano || s.EndTimeUnixNano > parent.EndTimeUnixNano {
				t.Errorf("%s is not within its job", s.Name)
			}
			job := parent.text("surprisal.job")
			if phases[job] == nil {
				phases[job] = map[string]int{}
			}
			phases[job][s.Name]++
			if s.Name == "forward" {
				forward += s.number("surprisal.tokens")
			}
		default:
			t.Errorf("a span %q", s.Name)
		}
	}
	if len(phases) != jobsWanted || forward != tokens {
		t.Errorf("%d jobs with %d tokens, want %d with %d", len(phases), forward, jobsWanted, tokens)
	}
	for job, p := range phases {
		if p["read"] == 0 || p["tokenize"] != p["read"] || p["forward"] == 0 || p["write"] != 1 {
			t.Errorf("job %s: %v", job, p)
		}
	}
}

// scoreFiles counts those in out.
func scoreFiles(t *testing.T, out string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(out, "*", "rows-*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// TestTracesOfARun: the spans of a dispatcher and of its worker processes are one
// trace.
func TestTracesOfARun(t *testing.T) {
	t.Parallel()
	env, got := startCollector(t)
	args := func(out string) []string {
		return []string{"run", "--json", "--model", demoModel, "--out", out, "--workers", "2", "--job-tokens", "10000",
			demoCorpus + "/001_00000.parquet"}
	}
	on := filepath.Join(t.TempDir(), "on")
	cmd, r := start(t, env, "dispatcher", args(on)...)
	sum := parseSummary(t, wait(t, cmd, r).want(t, 0))
	oneTrace(t, got(), sum.Run, scoreFiles(t, on), sum.Tokens)
	t.Logf("%d spans", len(got()))

	for _, bad := range []string{"OTEL_TRACES_EXPORTER=zipkin", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"} {
		cmd, r := start(t, append(env, bad), "dispatcher", args(filepath.Join(t.TempDir(), "bad"))...)
		if r := wait(t, cmd, r).want(t, 2); strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%s: %s", bad, r.stderr)
		}
	}
}

// TestTracesOfACluster: the context goes with the messages: a worker that somebody
// else started adds to the trace of submit. A collector that is away stops nobody.
func TestTracesOfACluster(t *testing.T) {
	t.Parallel()
	env, got := startCollector(t)
	startQueue(t)
	out := filepath.Join(t.TempDir(), "out")
	submit, r := start(t, env, "dispatcher", "submit", "--model", demoModel, "--out", out, "--job-tokens", "20000",
		demoCorpus+"/001_00000.parquet")
	run := strings.TrimSpace(wait(t, submit, r).want(t, 0).stdout)
	worker, wr := start(t, append(env, "OTEL_SERVICE_NAME=surprisal-worker"), "worker", "--log-format", "json")
	sum := parseSummary(t, dispatcher(t, "wait", "--json", run).want(t, 0))
	if err := worker.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wait(t, worker, wr).want(t, 0)
	oneTrace(t, got(), run, scoreFiles(t, out), sum.Tokens)

	in := filepath.Join(t.TempDir(), "in")
	writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(10), 10)
	away := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT=500"}
	cmd, r := start(t, away, "dispatcher", "run", "--json", "--model", demoModel, "--out",
		filepath.Join(t.TempDir(), "away"), "--workers", "1", in)
	if again := parseSummary(t, wait(t, cmd, r).want(t, 0)); !again.Complete || again.Documents == 0 {
		t.Errorf("%+v", again)
	}
	if !strings.Contains(r.stderr, "cannot send spans") {
		t.Errorf("nothing is said of lost spans: %s", r.stderr)
	}
}
