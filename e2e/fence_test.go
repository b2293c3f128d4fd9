package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"surprisal/internal/score"
	"surprisal/internal/shard/outdir"
)

// letters are a run's dead letters by job, as `status --json` has them.
func letters(t *testing.T, run string) map[string]string {
	t.Helper()
	var st struct {
		Runs []struct {
			Dead []struct{ Job, Reason string } `json:"dead"`
		} `json:"runs"`
	}
	fromJSON(t, dispatcher(t, "status", "--json", run).want(t, 0), &st)
	dead := map[string]string{}
	for _, r := range st.Runs {
		for _, d := range r.Dead {
			dead[d.Job] = d.Reason
		}
	}
	return dead
}

// TestConfinedWorker: jobs that point outside of what a worker is allowed die with
// one line, and nothing outside is read or written.
func TestConfinedWorker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	s := startNATS(t, writeFile(t, at("nats.conf"), fmt.Sprintf("jetstream { store_dir: %q }", at("js"))), nil)
	setenv(t, "SURPRISAL_NATS_URL", s.addr())
	model, err := filepath.Abs(demoModel)
	if err != nil {
		t.Fatal(err)
	}
	writeParquet(t, at("in/good.parquet"), manyTexts(4), 10)
	writeParquet(t, at("secret/a.parquet"), manyTexts(4), 10)
	for link, to := range map[string]string{
		"in/link.parquet": "../secret/a.parquet", "in/absolute.parquet": at("secret/a.parquet"),
		"scores/link": "../elsewhere",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(at(link)), 0o777), os.MkdirAll(at("elsewhere"), 0o777),
			os.Symlink(to, at(link))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.MkdirAll(at("models"), 0o777), os.CopyFS(at("other-model"), os.DirFS(model)),
		os.Symlink(at("other-model"), at("models/link"))); err != nil {
		t.Fatal(err)
	}
	submit := func(model, out string, in ...string) string {
		return strings.TrimSpace(dispatcher(t, append([]string{"submit", "--model", model, "--out", out},
			in...)...).want(t, 0).stdout)
	}
	bad := map[string]string{ // run: what is said
		submit(model, at("scores/outside-input"),
			at("secret")): "--allow-input",
		submit(model, at("scores/linked-input"),
			at("in/link.parquet")): "--allow-input",
		submit(model, at("scores/absolute-input"),
			at("in/absolute.parquet")): "--allow-input",
		submit(model, at("elsewhere/out"),
			at("in/good.parquet")): "--allow-output",
		submit(model, at("scores/link/out"),
			at("in/good.parquet")): "--allow-output",
		submit(at("other-model"), at("scores/outside-model"),
			at("in/good.parquet")): "--allow-model",
		submit(at("models/link"), at("scores/linked-model"), at("in/good.parquet"), "--query-scale",
			"0.5"): "--allow-model",
		submit(model, at("scores/tok"), "--tokenizer", at("other-model/tokenizer.json"),
			at("in/good.parquet")): "--allow-model",
	}
	good := submit(model, at("scores/good"), at("in/good.parquet"))
	before := listing(t, at("elsewhere"))
	forged := forgeJobs(t, s, at("scores/good"), dir)
	worker, wr := start(t, nil, "worker", "--log-format", "json", "--allow-input", at("in"), "--allow-input",
		at("in2")+","+at("in"),
		"--allow-output", at("scores"), "--allow-model", filepath.Dir(model)+","+at("models"))
	if r := wait(t, worker, wr); r.code != 2 || !strings.Contains(r.stderr, "in2") {
		t.Errorf("an allowed folder that is not there: code %d: %s", r.code, r.stderr)
	}
	worker, wr = start(t, nil, "worker", "--log-format", "json", "--allow-input", at("in"), "--allow-output",
		at("scores"),
		"--allow-model", filepath.Dir(model), "--allow-model", at("models"))
	for run, says := range bad {
		sum := parseSummary(t, dispatcher(t, "wait", "--json", run).want(t, 1))
		if len(sum.DeadJobs) != 1 || !strings.Contains(sum.DeadJobs[0].Reason, says) ||
			strings.Contains(sum.DeadJobs[0].Reason, "\n") {
			t.Errorf("%s: %+v", says, sum)
		}
	}
	if sum := parseSummary(t, dispatcher(t, "wait", "--json", good).want(t, 0)); !sum.Complete {
		t.Errorf("%+v", sum)
	}
	waitFor(t, "the letters of forged jobs", func() bool { return len(letters(t, good)) == len(forged) })
	for job, reason := range letters(t, good) {
		if want := forged[job]; want == "" || !strings.Contains(reason, want) || strings.Contains(reason, "\n") {
			t.Errorf("forged job %s: %q, want %q", job, reason, want)
		}
	}
	if err := worker.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	wait(t, worker, wr).want(t, 0)
	if after := listing(t, at("elsewhere")); after != before {
		t.Errorf("outside was written:\n%s\nwas\n%s", after, before)
	}
}

// listing lists a folder's files.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

// forgeJobs publishes messages that no dispatcher makes; it returns what is to be
// said of each.
func forgeJobs(t *testing.T, s *natsServer, out, dir string) map[string]string {
	t.Helper()
	m, err := outdir.ReadManifest(t.Context(), out)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(s.addr(), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	job := m.Jobs()[0]
	send := func(id string, body any) {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Request("surprisal.job."+m.Run+"."+id, b, 2*time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	said := map[string]string{"future": "version 99", "junk": "bad job message", "misnamed": "bad job message"}
	send("future", map[string]any{"v": 99, "anything": true})
	send("junk", "not a job")
	send("misnamed", job)
	forge := func(want string, change func(*score.Job)) {
		j := job
		change(&j)
		j.ID, j.Output = score.JobID(j.Run, j.Input, j.First, j.Last), score.OutputName(j.Input.Rel, j.First, j.Last)
		said[j.ID] = want
		send(j.ID, j)
	}
	forge("secret", func(j *score.Job) { j.Input.Rel, j.Input.Path = "a.parquet", dir+"/in/../secret/a.parquet" })
	forge("--allow-input", func(j *score.Job) { j.Input.Rel, j.Input.Path = "b.parquet", "/etc/passwd" })
	forge("elsewhere", func(j *score.Job) { j.Input.Rel, j.Out = "c.parquet", dir+"/scores/../elsewhere" })
	forge("bad job message", func(j *score.Job) { j.Input.Rel = "../../elsewhere/d.parquet" })
	return said
}

// TestHugeManifest: a manifest of 2 GB is refused by its size, in one line.
func TestHugeManifest(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(2), 10)
	if err := os.MkdirAll(out, 0o777); err != nil {
		t.Fatal(err)
	}
	path := writeFile(t, filepath.Join(out, score.ManifestName), "{")
	if err := os.Truncate(path, 2<<30); err != nil { // sparse
		t.Fatal(err)
	}
	cmd, r := start(t, nil, "dispatcher", "run", "--model", demoModel, "--out", out, in)
	wait(t, cmd, r).oneLine(t, 2, "2147483648 bytes", "at most")
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); !ok || u.Maxrss > 256<<10 { // kB
		t.Errorf("it took %d MB to refuse it", u.Maxrss>>10)
	}
}

// TestMovedOut: a manifest that names another folder is refused: whoever went on
// with it would write there.
func TestMovedOut(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	writeParquet(t, filepath.Join(in, "a.parquet"), manyTexts(2), 10)
	dispatcher(t, "run", "--model", demoModel, "--out", out, in).want(t, 0)
	if err := os.CopyFS(out+"2", os.DirFS(out)); err != nil {
		t.Fatal(err)
	}
	dispatcher(t, "run", "--model", demoModel, "--out", out+"2", in).oneLine(t, 2, "moved or copied", out)
}
