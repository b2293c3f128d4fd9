package embedded

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// begin starts a server that ends with the test.
func begin(t *testing.T, cfg Config) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	s, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func TestServerIsPrivate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := begin(t, Config{StoreDir: dir})
	if len(s.Token()) != 64 {
		t.Fatalf("token of %d characters", len(s.Token()))
	}
	if strings.Contains(s.URL(), s.Token()) || !strings.HasPrefix(s.URL(), "nats://127.0.0.1:") {
		t.Fatalf("URL %s", s.URL())
	}
	fi, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm()&0o077 != 0 && !strings.HasPrefix(dir, os.TempDir()) {
		t.Fatalf("store mode %v", fi.Mode())
	}
}

func TestServerSyncsEveryWrite(t *testing.T) {
	t.Parallel()
	v, err := begin(t, Config{StoreDir: t.TempDir()}).ns.Varz(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !v.JetStream.Config.SyncAlways {
		t.Fatal("the server does not sync every write")
	}
}

func TestServerStoreInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := begin(t, Config{StoreDir: dir})
	if _, err := Start(t.Context(), Config{StoreDir: dir}); !errors.Is(err, ErrStoreInUse) {
		t.Fatalf("got error %v, want %v", err, ErrStoreInUse)
	}
	if !s.ns.ReadyForConnections(time.Second) {
		t.Fatal("the first one was harmed")
	}
	s.Shutdown()
	begin(t, Config{StoreDir: dir}) // the first let go of it
}

func TestServerPortTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start := time.Now()
	_, err = Start(context.Background(), Config{StoreDir: t.TempDir(), Port: l.Addr().(*net.TCPAddr).Port,
		Log: zerolog.New(io.Discard)})
	if err == nil || !strings.Contains(err.Error(), "address already in use") || time.Since(start) > serverStart/2 {
		t.Fatalf("got %v after %s", err, time.Since(start))
	}
}

func TestServerConfig(t *testing.T) {
	for _, cfg := range []Config{{}, {StoreDir: "x", Port: -1}, {StoreDir: "x", Port: 70000}, {StoreDir: "x",
		Token: "short"}} {
		if s, err := Start(context.Background(), cfg); err == nil {
			s.Shutdown()
			t.Errorf("%+v was taken", cfg)
		}
	}
}
