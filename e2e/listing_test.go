package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// jobLine is a line of jobs --json.
type jobLine struct {
	Job, State, File string
	First, Last      int64
	Error            string
}

func listJobs(t *testing.T, args ...string) []jobLine {
	t.Helper()
	var all []jobLine
	s := bufio.NewScanner(strings.NewReader(dispatcher(t, append([]string{"jobs", "--json"}, args...)...).want(t,
		0).stdout))
	for s.Scan() {
		var j jobLine
		must(t, json.Unmarshal(s.Bytes(), &j))
		all = append(all, j)
	}
	return all
}

func states(list []jobLine) map[string]int {
	n := map[string]int{}
	for _, j := range list {
		n[j.State]++
	}
	return n
}

// TestListing looks at a run with two files, one of which changes before a worker
// comes to it: its jobs die. It holds every list to the others, and checkrun to
// the exported dead letters.
func TestListing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	server := startQueue(t)
	says(t, dispatcher(t, "workers").want(t, 0).stdout, "WORKER")
	says(t, dispatcher(t, "dead", "list").want(t, 0).stdout, "REASON")
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	writeParquet(t, filepath.Join(in, "a.parquet"), someTexts(30), 5)
	writeParquet(t, filepath.Join(in, "b.parquet"), someTexts(12), 5)
	run := strings.TrimSpace(dispatcher(t, "submit", "--model", demoModel, "--out", out, "--job-tokens", "300",
		in).want(t, 0).stdout)
	before := listJobs(t, run)
	if n := states(before); n["queued"] != len(before) || len(before) < 4 {
		t.Errorf("before a worker comes: %v", n)
	}
	if got := listJobs(t, out); len(got) != len(before) {
		t.Errorf("of the folder alone: %d jobs, %d of the run", len(got), len(before))
	}
	if got := listJobs(t, run, "--limit", "2"); len(got) != 2 {
		t.Errorf("--limit 2: %d", len(got))
	}
	says(t, dispatcher(t, "job", run, before[0].Job[:8]).want(t, 0).stdout, before[0].Job, "queued", "missing")
	must(t, os.Truncate(filepath.Join(in, "b.parquet"), 100))
	worker, wr := start(t, nil, "worker", "--threads", "1")
	dispatcher(t, "wait", run).want(t, 1)
	waitFor(t, "the worker says that it is idle",
		func() bool { return strings.Contains(dispatcher(t, "workers").want(t, 0).stdout, "idle") })
	says(t, dispatcher(t, "workers").want(t, 0).stdout, "cpu")

	after := listJobs(t, run)
	n := states(after)
	if len(after) != len(before) || n["done"] == 0 || n["dead"] == 0 || n["done"]+n["dead"] != len(after) {
		t.Errorf("after: %v", n)
	}
	dead := listJobs(t, run, "--state", "dead", "--state", "failed")
	if len(dead) != n["dead"] || dead[0].File != "b.parquet" || !strings.Contains(dead[0].Error, "changed") {
		t.Errorf("%+v", dead)
	}
	if got := listJobs(t, out, "--state", "done"); len(got) != n["done"] {
		t.Errorf("of the folder alone: %d done, want %d", len(got), n["done"])
	}
	says(t, dispatcher(t, "jobs", run, "--state", "nonsense").want(t, 2).stderr, "queued", "dead")
	says(t, dispatcher(t, "job", run, dead[0].Job).want(t, 0).stdout, "dead", "missing", "attempt 1", "dead letter",
		"changed", "b.parquet")
	for _, j := range after {
		if j.State == "done" {
			says(t, dispatcher(t, "job", run, j.Job).want(t, 0).stdout, "done", "committed", j.File)
			break
		}
	}
	says(t, dispatcher(t, "job", run, "zzzz").want(t, 2).stderr, "no job")
	says(t, dispatcher(t, "dead", "list", run).want(t, 0).stdout, run, dead[0].Job, "b.parquet")
	says(t, dispatcher(t, "dead", "show", run, dead[0].Job[:10]).want(t, 0).stdout, "attempt 1", "b.parquet", "changed")
	dispatcher(t, "dead", "show", run, "zzz").want(t, 2)
	dispatcher(t, "dead", "list", "no-such-run").want(t, 2)
	dispatcher(t, "dead", "show").want(t, 2)
	says(t, dispatcher(t, "list").want(t, 0).stdout, run, "failed", "%")
	says(t, dispatcher(t, "status", run).want(t, 0).stdout, "progress", "dead")

	letters := filepath.Join(dir, "dead.jsonl")
	must(t, os.WriteFile(letters, []byte(dispatcher(t, "dead", "export", run).want(t, 0).stdout), 0o666))
	cmd, r := start(t, nil, "checkrun", "--dead", letters, out)
	wait(t, cmd, r).want(t, 1)
	says(t, r.stdout, "inputs are those that were planned") // the changed one is the only violation
	says(t, r.stdout, "1 violations")
	v := verify(t, 1, out, "--nats", server.URL())
	if k := v.kinds(); !strings.HasPrefix(k, "input dead") || strings.Contains(k, "missing") {
		t.Errorf("verify: %s", k)
	}
	must(t, worker.Process.Signal(os.Interrupt))
	wait(t, worker, wr).want(t, 0)
}
