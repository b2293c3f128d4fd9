package conn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs/embedded"
)

func serve(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), cfg)
	for err != nil && cfg.Port != 0 && strings.Contains(err.Error(), "address already in use") {
		time.Sleep(100 * time.Millisecond) // somebody else took the port between the two servers, and will let it go
		s, err = embedded.Start(t.Context(), cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func TestDialUnreachable(t *testing.T) {
	t.Parallel()
	const addr = "127.0.0.1:1" // nobody listens there
	start := time.Now()
	_, _, err := Dial(context.Background(), Config{URLs: []string{"nats://me:secret@" + addr}})
	if !strings.HasPrefix(err.Error(), "cannot reach NATS at nats://"+addr) || !strings.HasSuffix(err.Error(),
		"is it running?") {
		t.Fatalf("got %v", err)
	}
	if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "secret") ||
		time.Since(start) > 20*time.Second {
		t.Fatalf("got %v after %s", err, time.Since(start))
	}
	// A worker waits for it, as long as it is let.
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, _, err = Dial(ctx, Config{URLs: []string{addr}, Wait: true})
	if err == nil || ctx.Err() == nil {
		t.Fatalf("got %v", err)
	}
}

func TestDialWaits(t *testing.T) {
	t.Parallel()
	at := embedded.Config{StoreDir: t.TempDir()}
	s := serve(t, at)
	s.Shutdown()
	at.Port, at.Token = s.Port(), s.Token()
	got := make(chan error, 1)
	go func() {
		c, _, err := Dial(t.Context(), Config{URLs: []string{s.URL()}, Token: s.Token(), Wait: true})
		if err == nil {
			c.Close()
		}
		got <- err
	}()
	time.Sleep(300 * time.Millisecond)
	serve(t, at)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestDialWrongToken(t *testing.T) {
	t.Parallel()
	s := serve(t, embedded.Config{StoreDir: t.TempDir()})
	var log bytes.Buffer
	for _, cfg := range []Config{
		{URLs: []string{s.URL()}, Token: "wrong-secret"},
		{URLs: []string{s.URL()}, Token: "wrong-secret", Wait: true},
		{URLs: []string{strings.Replace(s.URL(), "//", "//wrong-secret@", 1)}, Wait: true},
		{URLs: []string{s.URL()}, User: "me", Password: "wrong-secret"},
		{URLs: []string{s.URL()}},
	} {
		cfg.Log, cfg.Timeout = zerolog.New(zerolog.SyncWriter(&log)), 20*time.Second // the machine may be busy
		_, _, err := Dial(t.Context(), cfg)
		if !errors.Is(err, ErrAuth) {
			t.Fatalf("got error %v, want %v", err, ErrAuth)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Fatalf("the error shows the token: %v", err)
		}
	}
	if l := log.String(); strings.Contains(l, "secret") || strings.Contains(l, s.Token()) {
		t.Fatalf("the log shows a token:\n%s", l)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{
		{},
		{URLs: []string{"nats://user:secret@%zz"}},
		{URLs: []string{"http://secret@host"}},
		{URLs: []string{"nats://a:secret@host", "nats://b:secret@host"}},
		{URLs: []string{"host"}, Token: "secret", User: "b"},
		{URLs: []string{"host"}, CertFile: "x"},
		{URLs: []string{"127.0.0.1:1"}, CredsFile: "/nonexistent", Wait: true},
		{URLs: []string{"127.0.0.1:1"}, CAFile: "/nonexistent", Wait: true},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_, _, err := Dial(ctx, cfg)
		if err == nil || strings.Contains(err.Error(), "secret") || ctx.Err() != nil {
			t.Errorf("%v: got %v", cfg.URLs, err)
		}
		cancel()
	}
}

func TestEnviron(t *testing.T) {
	t.Parallel()
	want := Config{URLs: []string{"nats://a:1", "nats://b:2"}}
	for i, s := range want.Settings() {
		*s.Value = fmt.Sprintf("value %d", i)
	}
	env := want.Environ()
	got := FromEnv(func(name string) string {
		i := slices.IndexFunc(env, func(s string) bool { return strings.HasPrefix(s, name+"=") })
		if i < 0 {
			return ""
		}
		return strings.TrimPrefix(env[i], name+"=")
	})
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v", got)
	}
	// What is not said is said to be empty, so that a child inherits nothing.
	for _, kv := range (Config{Token: "t"}).Environ() {
		if name, value, _ := strings.Cut(kv, "="); (value != "") != (name == "SURPRISAL_NATS_TOKEN") {
			t.Errorf("%s", kv)
		}
	}
}
