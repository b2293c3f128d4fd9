package traces

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Header is the message header with a job's parent, as defined by W3C Trace Context.
const Header = "traceparent"

// ErrConfig means that the OTEL_* variables request something unsupported.
var ErrConfig = errors.New("cannot send traces")

// Tracer creates spans; a nil Tracer creates none.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// wanted tells from the standard variables whether to trace.
func wanted(env func(string) string) (bool, error) {
	if strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	named := env("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	switch e := env("OTEL_TRACES_EXPORTER"); e {
	case "none":
		return false, nil
	case "":
		if !named {
			return false, nil
		}
	case "otlp":
	default:
		return false, fmt.Errorf("%w: OTEL_TRACES_EXPORTER is %q, want otlp or none", ErrConfig, e)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		switch p := env(name); p {
		case "":
			continue
		case "http/protobuf":
		default:
			return false, fmt.Errorf("%w: %s is %q, want http/protobuf", ErrConfig, name, p)
		}
		break
	}
	return true, nil
}

// New creates a Tracer as the OTEL_* variables request: nil unless they name a collector.
// The caller must Close it. service is the name if OTEL_SERVICE_NAME is not set.
func New(ctx context.Context, service, version string, log zerolog.Logger) (*Tracer, error) {
	on, err := wanted(os.Getenv)
	if !on || err != nil {
		return nil, err
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", service),
		attribute.String("service.version", version)),
		resource.WithFromEnv(), resource.WithTelemetrySDK(), resource.WithHost())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	otel.SetErrorHandler(&complaints{log: log})
	t := &Tracer{provider: sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about))}
	t.tracer = t.provider.Tracer("surprisal", trace.WithInstrumentationVersion(version))
	return t, nil
}

// complaints logs the library's errors, at most once a minute: an unreachable collector
// costs spans and nothing else.
type complaints struct {
	log zerolog.Logger
	mu  sync.Mutex
	at  time.Time
}

func (c *complaints) Handle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) < time.Minute {
		return
	}
	c.at = time.Now()
	c.log.Warn().Err(err).Msg("cannot send spans; some are lost")
}

// closeWithin limits how long Close sends the remaining spans.
const closeWithin = 5 * time.Second

// Close sends the remaining spans.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		otel.Handle(err)
	}
}

// Run starts the span of a command that may queue jobs; jobs queued with the returned
// context are its children. Call end when the command ends.
func (t *Tracer) Run(ctx context.Context, command string) (_ context.Context, end func(error)) {
	if t == nil {
		return ctx, func(error) {}
	}
	ctx, span := t.tracer.Start(ctx, "run", trace.WithAttributes(attribute.String("surprisal.command", command)))
	return ctx, func(err error) { finish(span, err) }
}

func finish(span trace.Span, err error) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// NameRun sets the run of the context's span.
func NameRun(ctx context.Context, run string) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(attribute.String("surprisal.run", run))
	}
}

// Parent is the value of Header for messages sent with ctx; empty if there is no span.
func Parent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[Header]
}

// JobInfo describes one attempt at a job.
type JobInfo struct {
	Run, Job, File, Worker string
	First, Last            int64 // rows
	Attempt                int
}

// Job is the span of one attempt at a job, or nil if there is none. Its methods may be
// called from any goroutine.
type Job struct {
	ctx    context.Context // carries the span, for its children
	tracer trace.Tracer
	span   trace.Span
}

// Job starts the span of a job whose message had parent as Header. If parent is not
// valid, the job starts a new trace.
func (t *Tracer) Job(parent string, start time.Time, info JobInfo) *Job {
	if t == nil {
		return nil
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{Header: parent})
	ctx, span := t.tracer.Start(ctx, "job", trace.WithTimestamp(start), trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(
			attribute.String("surprisal.run", info.Run), attribute.String("surprisal.job",
				info.Job), attribute.String("surprisal.file", info.File),
			attribute.Int64("surprisal.first", info.First), attribute.Int64("surprisal.last", info.Last),
			attribute.Int("surprisal.attempt", info.Attempt), attribute.String("surprisal.worker", info.Worker),
		))
	return &Job{ctx, t.tracer, span}
}

// Phase adds a span from start until now for n of a unit (rows, tokens, documents). When
// tracing is off, it costs a nil check.
func (j *Job) Phase(name string, start time.Time, unit string, n int) {
	if j != nil {
		j.Span(name, start, time.Now(), unit, n)
	}
}

// Span is Phase with an explicit end.
func (j *Job) Span(name string, start, end time.Time, unit string, n int) {
	if j == nil || !j.span.IsRecording() {
		return
	}
	_, span := j.tracer.Start(j.ctx, name, trace.WithTimestamp(start),
		trace.WithAttributes(attribute.Int("surprisal."+unit, n)))
	span.End(trace.WithTimestamp(end))
}

// End ends the span; err is the reason why the job has no score file.
func (j *Job) End(err error) {
	if j != nil {
		finish(j.span, err)
	}
}
