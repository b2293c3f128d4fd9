package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/rs/zerolog"

	"surprisal/internal/failpoint"
	"surprisal/internal/jobs/embedded"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
)

const (
	demoModel  = "../examples/demo/model"
	demoCorpus = "../examples/demo/corpus"
)

// raced names the tests that look for races in the programs with -race -short: runs, a
// cluster, a bucket, an interrupt, and all that looks on.
const raced = "DemoCorpus|InterruptDrains|ClusterCommands|ControlCommands|BucketCluster|MetricsAreTotals|" +
	"TracesOfARun|ServeARealRun|ServeComesBack|Top"

// bin is where the programs under test are.
var bin string

func TestMain(m *testing.M) {
	code, err := withPrograms(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// withPrograms builds the programs and runs the tests, and with the race detector
// the programs have it too. Digests are cached in a folder of the tests' own.
func withPrograms(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "surprisal-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bin = dir
	for source, cgo := range map[string]string{"../cmd/dispatcher": "0", "../cmd/worker": "1",
		"../internal/tools/checkrun": "0"} {
		name := filepath.Base(source)
		// Without symbols for debuggers they are linked in half the time.
		args := []string{"build", "-o", filepath.Join(dir, name), "-ldflags", "-s -w " + goFlag("ldflags")}
		if failpoint.Enabled {
			args = append(args, "-tags", "failpoints,"+goFlag("tags"))
		}
		if raceEnabled {
			args, cgo = append(args, "-race"), "1"
		}
		cmd := exec.Command("go", append(args, source)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "SURPRISAL_") &&
			!strings.HasPrefix(name, "SURPRISAL_REQUIRE") {
			if err := os.Unsetenv(name); err != nil {
				return 0, err
			}
		}
	}
	// What tests build later must find what is compiled already.
	gocache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return 0, fmt.Errorf("find Go's build cache: %w", err)
	}
	if err := os.Setenv("GOCACHE", strings.TrimSpace(string(gocache))); err != nil {
		return 0, err
	}
	if err := os.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache")); err != nil {
		return 0, err
	}
	if err := os.Setenv("GORACE", "log_path="+filepath.Join(dir, "race")); err != nil {
		return 0, err
	}
	// With the race detector a program takes ten times as long.
	flag.Parse()
	if run := flag.Lookup("test.run"); raceEnabled && testing.Short() && run.Value.String() == "" {
		if err := run.Value.Set("^Test(" + raced + ")$"); err != nil {
			return 0, err
		}
	}
	code := m.Run()
	races, err := filepath.Glob(filepath.Join(dir, "race.*"))
	for _, path := range races {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		fmt.Fprintf(os.Stderr, "%s\n", b)
		code = 1
	}
	return code, err
}

// goFlag is the value of a flag in GOFLAGS: on the command line it would replace that.
func goFlag(name string) string {
	for _, f := range strings.Fields(os.Getenv("GOFLAGS")) {
		if value, ok := strings.CutPrefix(strings.TrimPrefix(f, "-"), name+"="); ok {
			return value
		}
	}
	return ""
}

// environ holds what setenv has set, by test.
var environ sync.Map

// setenv sets a variable of the programs that the test, or one of its own, starts
// from now on. Other tests run beside it: t.Setenv is for what is to set the test's
// own process.
func setenv(t *testing.T, name, value string) {
	t.Helper()
	had, set := environ.Load(t.Name())
	if !set {
		t.Cleanup(func() { environ.Delete(t.Name()) })
	}
	list, _ := had.([]string)
	environ.Store(t.Name(), append(slices.Clip(list), name+"="+value))
}

// environOf is the environment of what the test starts; later ones win.
func environOf(t *testing.T, more ...string) []string {
	env := os.Environ()
	for i, c := range t.Name() + "/" {
		if c == '/' {
			list, _ := environ.Load(t.Name()[:i])
			of, _ := list.([]string)
			env = append(env, of...)
		}
	}
	return append(env, more...)
}

// startQueue starts a server that is the queue of the programs that the test starts.
func startQueue(t *testing.T) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), embedded.Config{StoreDir: filepath.Join(t.TempDir(), "js"),
		Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	setenv(t, "SURPRISAL_NATS_URL", s.URL())
	setenv(t, "SURPRISAL_NATS_TOKEN", s.Token())
	return s
}

// result is a finished program.
type result struct {
	code           int
	stdout, stderr string
	out, err       output // of one that runs
}

// output is what a program has said so far: it may be read while more of it comes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start starts a program; its context kills it when the test ends, or after ten
// minutes: some run for as long as a long test.
func start(t *testing.T, env []string, program string, args ...string) (*exec.Cmd, *result) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	if !filepath.IsAbs(program) {
		program = filepath.Join(bin, program)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = environOf(t, env...)
	r := &result{code: -1}
	cmd.Stdout, cmd.Stderr = &r.out, &r.err
	cmd.WaitDelay = time.Minute // its workers hold stderr until they have ended too
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s %s\nstderr:\n%s", program, strings.Join(args, " "), r.err.String())
		}
	})
	return cmd, r
}

// wait waits for cmd and fills r.
func wait(t *testing.T, cmd *exec.Cmd, r *result) *result {
	t.Helper()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("%s: %v", cmd.Path, err)
	}
	r.code, r.stdout, r.stderr = cmd.ProcessState.ExitCode(), r.out.String(), r.err.String()
	return r
}

// dispatcher runs the dispatcher to its end.
func dispatcher(t *testing.T, args ...string) *result {
	t.Helper()
	cmd, r := start(t, nil, "dispatcher", args...)
	return wait(t, cmd, r)
}

// runProgram runs any program to its end.
func runProgram(t *testing.T, env []string, program string, args ...string) *result {
	t.Helper()
	cmd, r := start(t, env, program, args...)
	return wait(t, cmd, r)
}

func (r *result) want(t *testing.T, code int) *result {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", r.code, code, r.stdout, r.stderr)
	}
	return r
}

// says fails unless output holds each of the words.
func says(t *testing.T, output string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(output, w) {
			t.Errorf("%q is not said in:\n%s", w, output)
		}
	}
}

// scored is an output row with its file.
type scored struct {
	file string // relative input path without .parquet
	score.Score
}

// scores reads all of OUT's scores in order of file and row, and fails on a row
// twice, a gap, or a stray temporary.
func scores(t *testing.T, out string) []scored {
	t.Helper()
	var all []scored
	next := map[string]int64{}
	for path, err := range outdir.ListOutputs(t.Context(), out) {
		if err != nil {
			t.Fatal(err)
		}
		rel := place.Rel(out, path[:strings.LastIndexByte(path, '/')])
		err = shard.ReadScores(t.Context(), path, func(s score.Score) error {
			if s.Row != next[rel] {
				return fmt.Errorf("%s: row %d, want %d", path, s.Row, next[rel])
			}
			next[rel]++
			all = append(all, scored{rel, s})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// sameScores compares two OUTs to the bit.
func sameScores(t *testing.T, a, b []scored) {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("%d rows and %d rows", len(a), len(b))
	}
	for i := range a {
		x, y := a[i], b[i]
		x.TokenIDs, y.TokenIDs, x.TokenNLL, y.TokenNLL = nil, nil, nil, nil
		if fmt.Sprintf("%+v", x) != fmt.Sprintf("%+v", y) {
			t.Fatalf("row %d: %+v\nand %+v", i, x, y)
		}
	}
}

// textRow is an input row; a nil text is null.
type textRow struct {
	ID   string  `parquet:"id"`
	Text *string `parquet:"text,optional"`
}

func ptr[T any](v T) *T { return &v }

// writeParquet writes rows, perGroup of them a row group.
func writeParquet[T any](t *testing.T, path string, rows []T, perGroup int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := parquet.NewGenericWriter[T](f, parquet.Compression(&parquet.Zstd))
	for chunk := range slices.Chunk(rows, max(perGroup, 1)) {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// summary is the part of run --json that tests look at.
type summary struct {
	Run          string `json:"run"`
	Complete     bool   `json:"complete"`
	Documents    int64  `json:"documents"`
	Tokens       int64  `json:"tokens"`
	FailedRows   int64  `json:"failed_rows"`
	ScoredTokens int64  `json:"scored_tokens"`
	FailedFiles  []struct{ File, Error string }
	DeadJobs     []struct{ File, Reason string }

	WorkerFailures []struct {
		Worker, Error string
		Times         int
		Lost          bool
	} `json:"worker_failures"`
}

func parseSummary(t *testing.T, r *result) summary {
	t.Helper()
	var s struct {
		summary
		FF []struct{ File, Error string }  `json:"failed_files"`
		DJ []struct{ File, Reason string } `json:"dead_jobs"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		t.Fatalf("%v in:\n%s", err, r.stdout)
	}
	s.FailedFiles, s.DeadJobs = s.FF, s.DJ
	return s.summary
}
