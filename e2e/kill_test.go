package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"surprisal/internal/score"
	"surprisal/internal/shard/outdir"
)

// TestKilledRunGoesOn kills the whole of `dispatcher run` at random moments, over
// and over, then lets it finish: the output is that of an undisturbed run.
func TestKilledRunGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := filepath.Join(demoCorpus, "001_00000.parquet")
	flags := []string{"--model", demoModel, "--job-tokens", "2000", "--workers", "2", "--threads", "1"}
	calm := filepath.Join(dir, "calm")
	dispatcher(t, append(append([]string{"run"}, flags...), "--out", calm, in)...).want(t, 0)
	want, jobs := scores(t, calm), countOutputs(t, calm)
	out := filepath.Join(dir, "out")
	args := append(append([]string{"run"}, flags...), "--out", out, in)
	rng := rand.New(rand.NewPCG(7, 7))
	kills := 8
	if testing.Short() {
		kills = 3
	}
	for i := range kills {
		if countOutputs(t, out) > jobs*2/3 { // what was killed late has done much: something is to be left
			kills = i
			break
		}
		cmd, r := start(t, nil, "dispatcher", args...)
		// Every other kill comes as it starts; the others once it has committed more.
		if i%2 == 1 {
			waitForOutputs(t, out, countOutputs(t, out)+1)
		}
		time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Logf("kill %d: %v", i, err) // it was faster
		}
		wait(t, cmd, r)
	}
	sum := parseSummary(t, dispatcher(t, append(args, "--json")...).want(t, 0))
	t.Logf("%d kills; the last start scored %d of %d tokens", kills, sum.ScoredTokens, sum.Tokens)
	if sum.ScoredTokens == 0 || sum.ScoredTokens == sum.Tokens {
		t.Error("the kills hit nothing: every job or none was committed before the last start")
	}
	sameScores(t, want, scores(t, out))
}

func countOutputs(t *testing.T, out string) (n int) {
	t.Helper()
	for _, err := range outdir.ListOutputs(t.Context(), out) {
		if err == nil {
			n++
		}
	}
	return n
}

func waitForOutputs(t *testing.T, out string, n int) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); countOutputs(t, out) < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("fewer than %d outputs after three minutes", n)
		}
	}
}

// TestWorkersEndWithTheirParent: no worker outlives a killed dispatcher.
func TestWorkersEndWithTheirParent(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	cmd, r := start(t, nil, "dispatcher", "run", "--model", demoModel, "--out", out, demoCorpus)
	pid := childOf(t, cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wait(t, cmd, r)
	deadline := time.Now().Add(time.Minute)
	for alive(pid) {
		if time.Now().After(deadline) {
			t.Fatalf("worker %d is alive a minute after its dispatcher was killed", pid)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestKilledWorkerIsReplaced kills a worker; the run goes on without a person.
func TestKilledWorkerIsReplaced(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short: waits for an ack wait")
	}
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(400), 50)
	out := filepath.Join(dir, "out")
	cmd, r := start(t, nil, "dispatcher", "run", "--json", "--model", demoModel, "--out", out, "--job-tokens", "20000",
		in)
	pid := childOf(t, cmd.Process.Pid)
	time.Sleep(500 * time.Millisecond)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	sum := parseSummary(t, wait(t, cmd, r).want(t, 0))
	if !sum.Complete || len(scores(t, out)) != 400 {
		t.Errorf("%+v", sum)
	}
	says(t, r.stderr, "worker died")
	f := sum.WorkerFailures
	if len(f) != 1 || f[0].Worker != "CPU worker 0" || f[0].Times != 1 || f[0].Lost ||
		!strings.Contains(f[0].Error, "killed") {
		t.Errorf("the summary has %+v of the worker that was killed", f)
	}
}

// TestLostWorker: a worker that dies whenever it is started is lost, and the others score
// everything; without others the run ends.
func TestLostWorker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(60), 10)
	// The first to start is a worker, once every other one has died five times.
	script := `#!/bin/sh
if [ "$1" != engines ]; then
	if ! mkdir '` + dir + `/first' 2>/dev/null; then echo >>'` + dir + `/deaths'; exit 3; fi
	while [ "$(cat '` + dir + `/deaths' 2>/dev/null | wc -l)" -lt 5 ]; do sleep 0.05; done
fi
exec '` + filepath.Join(bin, "worker") + `' "$@"
`
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	args := []string{"run", "--model", demoModel, "--workers", "2", "--worker-bin", broken, "--job-tokens", "2000"}
	out := filepath.Join(dir, "out")
	r := dispatcher(t, append(args, "--out", out, in)...).want(t, 0)
	says(t, r.stderr, "worker lost; the others continue")
	says(t, r.stdout, "worker died", "5 times", "exit status 3", "lost; the others took its jobs",
		"complete: every row")
	if n := len(scores(t, out)); n != 60 {
		t.Errorf("%d of 60 rows", n)
	}
	r = dispatcher(t, append(args, "--out", filepath.Join(dir, "none"), in)...).want(t, 1)
	says(t, r.stderr, "died 5 times in a row")
}

// TestWorkerOnEachGPU: a run on GPUs starts one worker for each, on its own.
func TestWorkerOnEachGPU(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(60), 10)
	script := `#!/bin/sh
if [ "$1" = engines ]; then echo '{"engines":["cuda"],"gpus":[{"name":"A"},{"name":"B"},{"name":"C"}]}'; exit; fi
echo "$@" >>'` + dir + `/started'
exit 2
`
	worker := filepath.Join(dir, "worker")
	if err := os.WriteFile(worker, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	r := dispatcher(t, "run", "--model", demoModel, "--worker-bin", worker, "--job-tokens", "2000", "--out",
		filepath.Join(dir, "out"), in).want(t, 1)
	says(t, r.stderr, "wrong usage or environment", "GPU 0 (A)", "GPU 1 (B)", "GPU 2 (C)")
	started, err := os.ReadFile(filepath.Join(dir, "started"))
	if err != nil {
		t.Fatal(err)
	}
	for _, gpu := range []string{"--gpu 0 ", "--gpu 1 ", "--gpu 2 "} {
		if strings.Count(string(started), gpu) != 1 {
			t.Errorf("no worker, or more than one, with %sin:\n%s", gpu, started)
		}
	}
}

// TestInterruptDrains: the first interrupt keeps what is in hand, and the same
// command goes on.
func TestInterruptDrains(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := filepath.Join(dir, "in")
	writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(600), 50)
	out := filepath.Join(dir, "out")
	args := []string{"run", "--model", demoModel, "--out", out, "--job-tokens", "10000", in}
	cmd, r := start(t, nil, "dispatcher", args...)
	childOf(t, cmd.Process.Pid)
	time.Sleep(700 * time.Millisecond)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	wait(t, cmd, r).want(t, 130)
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("the drain took %s", took)
	}
	says(t, r.stderr, "draining", "continues from here")
	kept := len(scores(t, out))
	if _, err := os.Stat(filepath.Join(out, score.SuccessName)); err == nil {
		t.Error("_SUCCESS after an interrupt")
	}
	sum := parseSummary(t, dispatcher(t, append(args, "--json")...).want(t, 0))
	t.Logf("%d of 600 rows were kept", kept)
	if !sum.Complete || len(scores(t, out)) != 600 || (kept > 0 && sum.ScoredTokens >= sum.Tokens) {
		t.Errorf("kept %d rows, then %+v", kept, sum)
	}
}

// manyTexts makes n documents of about 250 tokens.
func manyTexts(n int) []textRow {
	rows := make([]textRow, n)
	for i := range rows {
		rows[i] = textRow{ID: strings.Repeat("i", i%7),
			Text: ptr(strings.Repeat("let x = y.iter().map(|v| v + 1).collect(); ", 12))}
	}
	return rows
}

// childOf waits for a worker that pid has started.
func childOf(t *testing.T, pid int) int {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for time.Now().Before(deadline) {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			t.Skipf("no /proc here: %v", err)
		}
		for _, e := range entries {
			child, parent, args := procInfo(e.Name())
			if parent == pid && strings.Contains(args, "--end-with-stdin") {
				return child
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("process %d started no worker", pid)
	return 0
}
