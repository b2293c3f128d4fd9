package jobs

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"surprisal/internal/jobs/record"
)

func TestLostRace(t *testing.T) {
	api := func(code jetstream.ErrorCode) error {
		return fmt.Errorf("update: %w", &jetstream.APIError{Code: 400, ErrorCode: code,
			Description: "wrong last sequence"})
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("update: %w", jetstream.ErrKeyExists), true},
		{api(10071), true},
		{api(10164), true}, // as replicated streams say it
		{api(codePerSubject), false},
		{nats.ErrTimeout, false},
		{nil, false},
	} {
		if got := lostRace(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

// TestBroken: what may be asked again.
func TestBroken(t *testing.T) {
	api := func(code jetstream.ErrorCode) error {
		return fmt.Errorf("look: %w", &jetstream.APIError{Code: 503, ErrorCode: code})
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("look: %w", nats.ErrTimeout), true},
		{api(10008), true},  // no leader yet
		{api(10039), false}, // the account has no JetStream
		{nil, false},
	} {
		if got := isBroken(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

// TestOldConsumer: an earlier version had one consumer for all runs. Who opens a
// run is told what to do with it.
func TestOldConsumer(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.ok(r.c.CloseRun(r.ctx, "run"))
	for _, filter := range []string{"", jobSubjects} { // 10099, 10100
		_, err := r.c.js.CreateConsumer(r.ctx, jobStream, jetstream.ConsumerConfig{
			Durable: "workers", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: filter,
		})
		r.ok(err)
		err = r.c.OpenRun(r.ctx, "run", 0, record.RunConfig{}, record.RunConfig{})
		r.is(err, ErrDrift)
		var old *OldConsumerError
		if !errors.As(err, &old) || old.Consumer != "workers" || strings.Contains(err.Error(), "\n") ||
			!strings.Contains(err.Error(), "nats consumer rm SURPRISAL_JOBS workers") {
			t.Fatalf("filter %q: %v", filter, err)
		}
		r.ok(r.c.js.DeleteConsumer(r.ctx, jobStream, "workers"))
	}
	r.open("run", 0)
}
