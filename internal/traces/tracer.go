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

// Header is the message header that a job's parent is in, as W3C Trace Context has it.
const Header = "traceparent"

// ErrConfig: the OTEL_* variables ask for what is not here.
var ErrConfig = errors.New("traces can't be sent")

// Tracer makes spans; nil makes none.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// wanted reads the standard variables.
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

// New makes what the OTEL_* variables ask for: nil, unless they name a collector.
// Close it. service is the name where OTEL_SERVICE_NAME is not set.
func New(ctx context.Context, service, version string, log zerolog.Logger) (*Tracer, error) {
	on, err := wanted(os.Getenv)
	if !on || err != nil {
		return nil, err
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", service), attribute.String("service.version", version)),
		resource.WithFromEnv(), resource.WithTelemetrySDK(), resource.WithHost())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	otel.SetErrorHandler(&complaints{log: log})
	t := &Tracer{provider: sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about))}
	t.tracer = t.provider.Tracer("surprisal", trace.WithInstrumentationVersion(version))
	return t, nil
}

// complaints logs what the library complains of, once a minute: a collector that is
// away costs spans, nothing else.
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
	c.log.Warn().Err(err).Msg("spans not sent: some are lost")
}

// closeWithin bounds what is sent at the end.
const closeWithin = 5 * time.Second

// Close sends what was not sent yet.
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

// Run begins the span of a command that may queue jobs; its context makes those
// children of it. Call end when the command is over.
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

// NameRun says which run the context's span is of.
func NameRun(ctx context.Context, run string) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(attribute.String("surprisal.run", run))
	}
}

// Parent is what Header is to hold of messages sent under ctx; empty: nothing.
func Parent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[Header]
}

// JobInfo tells one attempt at a job.
type JobInfo struct {
	Run, Job, File, Worker string
	First, Last            int64 // rows
	Attempt                int
}

// Job is the span of one attempt at a job; nil is none. Its methods may be called
// from any goroutine.
type Job struct {
	ctx    context.Context // the span's
	tracer trace.Tracer
	span   trace.Span
}

// Job begins the span of a job whose message's Header held parent; what is not valid
// there counts as nothing, and the job's trace begins with it.
func (t *Tracer) Job(parent string, start time.Time, info JobInfo) *Job {
	if t == nil {
		return nil
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{Header: parent})
	ctx, span := t.tracer.Start(ctx, "job", trace.WithTimestamp(start), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("surprisal.run", info.Run), attribute.String("surprisal.job", info.Job), attribute.String("surprisal.file", info.File),
		attribute.Int64("surprisal.first", info.First), attribute.Int64("surprisal.last", info.Last),
		attribute.Int("surprisal.attempt", info.Attempt), attribute.String("surprisal.worker", info.Worker),
	))
	return &Job{ctx, t.tracer, span}
}

// Phase adds a span of what took from start until now: n of unit (rows, tokens,
// documents).
// A nil check alone when nobody traces.
func (j *Job) Phase(name string, start time.Time, unit string, n int) {
	if j != nil {
		j.Span(name, start, time.Now(), unit, n)
	}
}

// Span is Phase of what has ended before.
func (j *Job) Span(name string, start, end time.Time, unit string, n int) {
	if j == nil || !j.span.IsRecording() {
		return
	}
	_, span := j.tracer.Start(j.ctx, name, trace.WithTimestamp(start), trace.WithAttributes(attribute.Int("surprisal."+unit, n)))
	span.End(trace.WithTimestamp(end))
}

// End ends it; err is why the job has no score file.
func (j *Job) End(err error) {
	if j != nil {
		finish(j.span, err)
	}
}
