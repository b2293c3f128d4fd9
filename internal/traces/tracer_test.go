package traces

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func TestWanted(t *testing.T) {
	const url = "http://127.0.0.1:4318"
	for _, x := range []struct {
		name string
		env  map[string]string
		on   bool
		bad  bool
	}{
		{"nothing", nil, false, false},
		{"an endpoint", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url}, true, false},
		{"an endpoint of traces", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": url}, true, false},
		{"otlp at its default", map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, true, false},
		{"none", map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": url}, false, false},
		{"disabled", map[string]string{"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": url}, false, false},
		{"a name alone", map[string]string{"OTEL_SERVICE_NAME": "x"}, false, false},
		{"an exporter that is not here", map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, false, true},
		{"gRPC", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false,
			true},
		{"HTTP for traces", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
			"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, true, false},
	} {
		on, err := wanted(func(k string) string { return x.env[k] })
		if on != x.on || errors.Is(err, ErrConfig) != x.bad {
			t.Errorf("%s: %v, %v", x.name, on, err)
		}
	}
}

// TestOff: without the variables nothing is made, and nothing is allocated.
func TestOff(t *testing.T) {
	for _, k := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
		"OTEL_TRACES_EXPORTER"} {
		t.Setenv(k, "")
	}
	tr, err := New(t.Context(), "x", "y", zerolog.Nop())
	if tr != nil || err != nil {
		t.Fatal(tr, err)
	}
	ctx, end := tr.Run(t.Context(), "run")
	NameRun(ctx, "r")
	if p := Parent(ctx); p != "" {
		t.Errorf("a parent %q of nothing", p)
	}
	j := tr.Job("", time.Now(), JobInfo{})
	if n := testing.AllocsPerRun(100, func() { j.Phase("read", time.Time{}, "rows", 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	j.End(errors.New("x"))
	end(nil)
	tr.Close()
}

// TestParentIsHostile: a header that is no parent costs nothing but the link.
func TestParentIsHostile(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	tr, err := New(t.Context(), "x", "y", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	good := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, parent := range []string{"", "x", good[:54], "ff" + good[2:],
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", good + "\x00\r\n"} {
		j := tr.Job(parent, time.Now(), JobInfo{})
		if got := j.span.SpanContext(); !got.IsValid() || got.TraceID().String() == good[3:35] {
			t.Errorf("%q: %v", parent, got)
		}
	}
	j := tr.Job(good, time.Now(), JobInfo{})
	if got := j.span.SpanContext().TraceID().String(); got != good[3:35] {
		t.Errorf("the trace is %s", got)
	}
	if p := Parent(j.ctx); len(p) != 55 || p[3:35] != good[3:35] {
		t.Errorf("the header is %q", p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = tr.provider.Shutdown(ctx) // nobody is there to take them
}

func BenchmarkPhaseOff(b *testing.B) {
	var j *Job
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		j.Phase("forward", now, "tokens", 1)
	}
}

func BenchmarkPhaseOn(b *testing.B) {
	b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	tr, err := New(b.Context(), "x", "y", zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	j := tr.Job("", time.Now(), JobInfo{Run: "r", Job: "j"})
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		j.Phase("forward", now, "tokens", 1)
	}
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	_ = tr.provider.Shutdown(ctx)
}
