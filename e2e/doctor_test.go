package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// check is one of doctor --json's.
type check struct{ Check, State, What, Remedy string }

// doctor gives the checks by name, the worst of each.
func doctor(t *testing.T, code int, args ...string) map[string]check {
	t.Helper()
	var list []check
	fromJSON(t, dispatcher(t, append([]string{"doctor", "--json"}, args...)...).want(t, code), &list)
	all := map[string]check{}
	for _, c := range list {
		if old, ok := all[c.Check]; !ok || old.State == "ok" {
			all[c.Check] = c
		}
		if c.State != "ok" && c.Remedy == "" {
			t.Errorf("no remedy: %+v", c)
		}
	}
	return all
}

// TestDoctor looks at a machine where all is well, then at one fault after another.
func TestDoctor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, HTTPHost: "127.0.0.1", HTTPPort: -1, JetStream: true,
		StoreDir:   filepath.Join(dir, "js"),
		SyncAlways: true, Authorization: "secret-1", NoLog: true, NoSigs: true,
	})
	must(t, err)
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(2 * time.Minute) {
		t.Fatal("the server is not ready")
	}
	setenv(t, "SURPRISAL_NATS_TOKEN", "secret-1")
	url, monitor := s.ClientURL(), "http://"+s.MonitorAddr().String()
	out := filepath.Join(dir, "not", "there")
	well := []string{"--nats", url, "--monitor", monitor, "--model", demoModel, "--out", out}
	var all map[string]check
	waitFor(t, "a server that a busy machine's disk does not slow down", func() bool {
		all = doctor(t, 0, well...)
		return all["publish"].State == "ok" && all["clock"].State == "ok"
	})
	for name, state := range map[string]string{
		"nats": "ok", "jetstream": "ok", "publish": "ok", "sync_interval": "ok", "store": "ok", "queue": "warn",
		"clock":   "ok",
		"engines": "ok", "model": "ok", "publish files": "ok",
	} {
		if c := all[name]; c.State != state {
			t.Errorf("%s is %q, want %s: %s", name, c.State, state, c.What)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 { // the server's store
		t.Errorf("left behind: %v, %v", entries, err)
	}
	// A queue that is there, and a folder that holds a run.
	in := filepath.Join(dir, "in")
	writeParquet(t, filepath.Join(in, "a.parquet"), someTexts(4), 5)
	dispatcher(t, "submit", "--nats", url, "--model", demoModel, "--out", out, in).want(t, 0)
	if all := doctor(t, 0, well...); all["queue"].State != "ok" || all["workers"].State != "warn" ||
		all["out"].State != "ok" {
		t.Errorf("after a submit: %+v", all)
	}
	text := dispatcher(t, append([]string{"doctor"}, well...)...).want(t, 0)
	says(t, text.stdout, "ok    nats", "warn  workers")
	if strings.Contains(text.stdout+text.stderr, "secret-1") {
		t.Error("the token is shown")
	}

	setenv(t, "SURPRISAL_NATS_TOKEN", "wrong")
	if c := doctor(t, 1, "--nats", url)["nats"]; c.State != "FAIL" || !strings.Contains(c.Remedy, "TOKEN") {
		t.Errorf("wrong token: %+v", c)
	}
	setenv(t, "SURPRISAL_NATS_TOKEN", "")
	if c := doctor(t, 1, "--nats", "nats://127.0.0.1:1")["nats"]; c.State != "FAIL" || !strings.Contains(c.Remedy, "start") {
		t.Errorf("no server: %+v", c)
	}
	if c := doctor(t, 1, "--monitor", "http://127.0.0.1:1")["sync_interval"]; c.State != "FAIL" {
		t.Errorf("no monitor: %+v", c)
	}
	if c := doctor(t, 1, "--model", dir)["model"]; c.State != "FAIL" {
		t.Errorf("no model: %+v", c)
	}
	if c := doctor(t, 1, "--worker-bin", filepath.Join(dir, "none"))["worker"]; c.State != "FAIL" {
		t.Errorf("no worker: %+v", c)
	}
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o666))
	if c := doctor(t, 1, "--out", filepath.Join(dir, "file", "out"))["out"]; c.State != "FAIL" {
		t.Errorf("OUT below a file: %+v", c)
	}
	must(t, os.Remove(filepath.Join(out, "_manifest.json")))
	if c := doctor(t, 0, "--out", out)["out"]; c.State != "warn" || !strings.Contains(c.Remedy, "--repair") {
		t.Errorf("manifest gone: %+v", c)
	}
}

// TestGC: what is left over goes, what may be in use and what is committed stays.
func TestGC(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := startQueue(t)
	in := filepath.Join(dir, "in")
	writeParquet(t, filepath.Join(in, "a.parquet"), someTexts(12), 5)
	submit := func(out string) string {
		return strings.TrimSpace(dispatcher(t, "submit", "--model", demoModel, "--out", out, "--job-tokens", "300",
			in).want(t, 0).stdout)
	}
	done, open := filepath.Join(dir, "done"), filepath.Join(dir, "open")
	run := submit(done)
	worker, wr := start(t, nil, "worker", "--threads", "1")
	dispatcher(t, "wait", run).want(t, 0)
	must(t, worker.Process.Signal(os.Interrupt))
	wait(t, worker, wr).want(t, 0)
	other := submit(open)
	want := contents(t, done)

	old, young := filepath.Join(done, "a", ".rows-"+run+".OLD.tmp"), filepath.Join(done, "a", ".rows-"+run+".YOUNG.tmp")
	aside := filepath.Join(done, ".surprisal-quarantine", "a", "rows.parquet.x.damaged")
	must(t, os.MkdirAll(filepath.Dir(aside), 0o777))
	for _, f := range []string{old, young, aside} {
		must(t, os.WriteFile(f, []byte("x"), 0o666))
	}
	must(t, os.Chtimes(old, time.Time{}, time.Now().Add(-2*time.Hour)))
	gc := func(args ...string) (kinds string) {
		t.Helper()
		var list []struct {
			Kind, Name string
			Removed    bool
		}
		fromJSON(t, dispatcher(t, append([]string{"gc", "--json"}, args...)...).want(t, 0), &list)
		for _, g := range list {
			kinds += g.Kind + " "
		}
		return kinds
	}
	there := func(paths ...string) {
		t.Helper()
		for _, p := range paths {
			if _, err := os.Stat(p); err != nil {
				t.Error(err)
			}
		}
	}
	if k := gc("--dry-run", "--quarantine", done); k != "quarantined temporary " {
		t.Errorf("dry run: %q", k)
	}
	there(old, young, aside)
	if k := gc(done); k != "temporary " {
		t.Errorf("%q", k)
	}
	there(young, aside)
	if k := gc("--stale-after", "1ns", "--quarantine", done); k != "quarantined temporary " {
		t.Errorf("%q", k)
	}
	sameContents(t, want, contents(t, done))

	if k := gc(); k != "" {
		t.Errorf("a run that ended now went: %q", k)
	}
	if k := gc("--older-than", "0s", "--nats", s.URL(), open); k != "" {
		t.Errorf("another folder's run went: %q", k)
	}
	if k := gc("--older-than", "0s"); k != "run " {
		t.Errorf("%q", k)
	}
	says(t, dispatcher(t, "status", run).want(t, 2).stderr, "no such run")
	says(t, dispatcher(t, "status", other).want(t, 0).stdout, "running")
	if again := submit(done); again != run { // the folder is what counts
		t.Errorf("run %s, was %s", again, run)
	}
	sameContents(t, want, contents(t, done))
	dispatcher(t, "gc", dir).want(t, 2)
}
