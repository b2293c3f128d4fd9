package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"surprisal/internal/jobs/embedded"
)

// TestControlCommands: pause, resume, cancel, retry and drain, and taking over a
// run whose queue is gone, with real processes.
func TestControlCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve := func(store string) *embedded.Server {
		server, err := embedded.Start(t.Context(), embedded.Config{StoreDir: filepath.Join(dir, store),
			Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Shutdown)
		setenv(t, "SURPRISAL_NATS_URL", server.URL())
		setenv(t, "SURPRISAL_NATS_TOKEN", server.Token())
		return server
	}
	server := serve("js")
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(40), 10)
	bad := filepath.Join(in, "bad.parquet")
	writeFile(t, bad, "PAR1 no parquet PAR1")
	says(t, dispatcher(t, "status").want(t, 0).stdout, "queue", "workers") // of a server that was never set up

	run := strings.TrimSpace(dispatcher(t, "submit", "--model", demoModel, "--out", out, "--job-tokens", "2000",
		"--priority", "3", in).want(t, 0).stdout)
	says(t, dispatcher(t, "pause", run).want(t, 0).stdout, "is paused")
	worker, wr := start(t, nil, "worker", "--log-format", "json", "--id", "w1")
	waitFor(t, "the worker", func() bool { return strings.Contains(dispatcher(t, "workers").stdout, "w1") })
	time.Sleep(1500 * time.Millisecond)
	says(t, dispatcher(t, "status", run).want(t, 0).stdout, "paused", "0 of 40", "priority")
	if len(scores(t, out)) != 0 {
		t.Error("a paused run was scored")
	}
	says(t, dispatcher(t, "resume", run).want(t, 0).stdout, "is resumed")
	if sum := parseSummary(t, dispatcher(t, "wait", "--json", run).want(t, 1)); sum.Documents != 40 ||
		len(sum.FailedFiles) != 1 {
		t.Errorf("%+v", sum)
	}
	writeParquet(t, bad, manyTexts(7), 10)
	says(t, dispatcher(t, "retry", run).want(t, 0).stdout, "1 failed files planned again")
	if sum := parseSummary(t, dispatcher(t, "wait", "--json", run).want(t, 0)); sum.Documents != 47 || !sum.Complete {
		t.Errorf("%+v", sum)
	}
	says(t, dispatcher(t, "cancel", run).want(t, 2).stderr, "complete")
	says(t, dispatcher(t, "drain", "nobody").want(t, 2).stderr, "nobody")
	says(t, dispatcher(t, "drain", "w1").want(t, 0).stdout, "is draining")
	wait(t, worker, wr).want(t, 0)
	says(t, wr.stderr, "asked to drain")

	// Another run is cancelled, then loses its queue, and goes on all the same.
	out2 := filepath.Join(dir, "out2")
	run = strings.TrimSpace(dispatcher(t, "submit", "--model", demoModel, "--out", out2, "--job-tokens", "2000",
		in).want(t, 0).stdout)
	says(t, dispatcher(t, "cancel", "--now", run).want(t, 0).stdout, "cancelled")
	says(t, dispatcher(t, "wait", run).want(t, 1).stderr, "cancelled")
	server.Shutdown()
	serve("another")
	says(t, dispatcher(t, "resume", run).want(t, 2).stderr, "resume OUT")
	worker, wr = start(t, nil, "worker", "--log-format", "json")
	if sum := parseSummary(t, dispatcher(t, "resume", "--wait", "--json", out2).want(t, 0)); sum.Documents != 47 ||
		!sum.Complete {
		t.Errorf("%+v", sum)
	}
	if err := worker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wait(t, worker, wr)
}
