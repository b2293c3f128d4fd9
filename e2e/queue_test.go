package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestClusterCommands scores through a NATS server that stands by itself:
// submit, a worker of its own, wait, status, list and plan.
func TestClusterCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := startQueue(t)
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(40), 10)

	var plan struct {
		Total struct{ Rows, Jobs, Committed int64 }
	}
	fromJSON(t, dispatcher(t, "plan", "--json", "--model", demoModel, "--job-tokens", "2000", in).want(t, 0), &plan)
	if plan.Total.Rows != 40 || plan.Total.Jobs < 4 {
		t.Errorf("plan: %+v", plan)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("plan touched OUT")
	}
	submit := []string{"submit", "--model", demoModel, "--out", out, "--job-tokens", "2000", in}
	run := strings.TrimSpace(dispatcher(t, submit...).want(t, 0).stdout)
	var list []struct{ ID, State string }
	fromJSON(t, dispatcher(t, "list", "--json").want(t, 0), &list)
	if len(list) != 1 || list[0].ID != run || list[0].State != "running" {
		t.Errorf("list: %+v", list)
	}
	// Submitting again queues nothing twice.
	if again := strings.TrimSpace(dispatcher(t, submit...).want(t, 0).stdout); again != run {
		t.Errorf("submitted again: run %s, was %s", again, run)
	}
	worker, wr := start(t, nil, "worker", "--log-format", "json")
	sum := parseSummary(t, dispatcher(t, "wait", "--json", run).want(t, 0))
	if !sum.Complete || sum.Documents != 40 {
		t.Errorf("wait: %+v", sum)
	}
	comesToSay(t, []string{"status"}, "queue", "workers", "cpu on")
	comesToSay(t, []string{"status", run}, run, "complete", "40 of 40")
	says(t, dispatcher(t, "status", "no-such-run").want(t, 2).stderr, "no-such-run")
	if err := worker.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	wait(t, worker, wr).want(t, 0)
	says(t, wr.stderr, "job committed", `"run":"`+run+`"`, `"file":"a.parquet"`)
	if strings.Contains(wr.stderr, server.Token()) {
		t.Error("the token is in the worker's log")
	}
	if rows := scores(t, out); len(rows) != 40 {
		t.Errorf("%d rows", len(rows))
	}
	setenv(t, "SURPRISAL_NATS_TOKEN", "wrong")
	says(t, dispatcher(t, "list").want(t, 2).stderr, "credentials")
}

func fromJSON(t *testing.T, r *result, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.stdout), v); err != nil {
		t.Fatalf("%v in:\n%s", err, r.stdout)
	}
}

// TestConfigFileAndEnvironment: flags win over the environment, which wins over
// the file.
func TestConfigFileAndEnvironment(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(3), 10)
	config := filepath.Join(dir, "surprisal.yaml")
	body := "model: " + demoModel + "\nout: " + out +
		"\nlong: truncate\nmax-length: 5\nkeep: [id, text]\nper-token: true\n"
	if err := os.WriteFile(config, []byte(body), 0o666); err != nil {
		t.Fatal(err)
	}
	setenv(t, "SURPRISAL_MAX_LENGTH", "7")
	setenv(t, "SURPRISAL_LONG", "window")
	dispatcher(t, "run", "--config", config, "--long", "truncate", in).want(t, 0)
	for _, r := range scores(t, out) {
		if r.Tokens != 7 || !r.Truncated {
			t.Errorf("%+v, want 7 tokens of the environment's --max-length", r)
		}
	}
	if err := os.WriteFile(config, []byte("modle: x\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	says(t, dispatcher(t, "run", "--config", config, in).want(t, 2).stderr, "modle")
}
