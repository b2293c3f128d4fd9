package outdir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/testkit/shardtest"
)

// crashEnv asks a run of this test binary to commit a job and to die on the way.
const crashEnv = "SHARD_TEST_CRASH"

func crashJob(t testing.TB, out string) score.Job {
	return shardtest.Job(t, shardtest.Fixtures(t, "required")[0], out, shardtest.TextOptions(), 0, 99)
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// TestCrashHelper is the process that dies.
func TestCrashHelper(t *testing.T) {
	where, out, ok := strings.Cut(os.Getenv(crashEnv), "@")
	if !ok {
		t.Skip("only for TestCrash")
	}
	ctx := context.Background()
	job := crashJob(t, out)
	r, err := shard.OpenRange(ctx, job)
	if err != nil {
		t.Fatal(err)
	}
	o, err := openOut(ctx, job.Out)
	if err != nil {
		t.Fatal(err)
	}
	w, err := shard.NewWriter(dying{o, where}, job, r.Columns(), testMeta)
	if err != nil {
		t.Fatal(err)
	}
	for i := range job.Rows() {
		row, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(fakeScore(row, false), row.Kept); err != nil {
			t.Fatal(err)
		}
		if where == "write" && i == 50 {
			die()
		}
	}
	_, err = w.Commit(ctx)
	t.Fatalf("alive: %v", err)
}

func TestCrash(t *testing.T) {
	for where, published := range map[string]bool{"write": false, "seal": false, "publish": true} {
		t.Run(where, func(t *testing.T) {
			out := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run=^TestCrashHelper$")
			cmd.Env = append(os.Environ(), crashEnv+"="+where+"@"+out)
			b, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%v: %s", err, b)
			}
			left := names(t, out)
			for _, n := range left {
				if base := filepath.Base(n); !strings.HasPrefix(base, ".") && !published {
					t.Fatalf("visible: %s", n)
				}
			}
			n := 0
			if err := InspectAll(context.Background(), out, func(_ string, _ shard.Committed, err error) error {
				n++
				return err
			}); err != nil || (n == 1) != published {
				t.Fatalf("%d outputs (%v)", n, err)
			}
			if n, err := RemoveTemporaries(t.Context(), out, "run-1", time.Hour); n != 0 || err != nil {
				t.Fatalf("removed %d young ones (%v)", n, err)
			}
			if n, err := RemoveTemporaries(t.Context(), out, "run-2", -time.Hour); n != 0 || err != nil {
				t.Fatalf("removed %d of another run (%v)", n, err)
			}
			if n, err := RemoveTemporaries(t.Context(), out, "run-1", -time.Hour); n != 1 || err != nil {
				t.Fatalf("removed %d, left %v (%v)", n, left, err)
			}
			c, err := writeJob(t, crashJob(t, out), nil)
			if err != nil || c.Existed != published || len(names(t, out)) != 1 {
				t.Fatalf("again: %+v (%v), files %v", c, err, names(t, out))
			}
		})
	}
}

// linking starts a job's score file in a folder where hard links are made by link.
func linking(t *testing.T, job score.Job, link func(from, to string) error) *shard.Writer {
	t.Helper()
	o, err := openOut(t.Context(), job.Out)
	if err != nil {
		t.Fatal(err)
	}
	o.hardLink = link
	w, err := shard.NewWriter(o, job, nil, testMeta)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// dying is a folder whose writer dies when its file is whole, or published.
type dying struct {
	*outDir
	where string
}

func (d dying) Publish(ctx context.Context, f *os.File, temp, name string, c shard.Committed) (shard.Committed, error) {
	if d.where == "seal" {
		die()
	}
	if _, err := d.outDir.Publish(ctx, f, temp, name, c); err != nil {
		return c, err
	}
	die() // published, its temporary still there
	return c, nil
}

func TestCommitWithoutHardLinks(t *testing.T) {
	out := t.TempDir()
	job := crashJob(t, out)
	commit := func() (shard.Committed, error) {
		ctx := context.Background()
		w := linking(t, job, func(string, string) error { return &os.LinkError{Op: "link", Err: syscall.EPERM} })
		defer w.Abort()
		for i := range job.Rows() {
			if err := w.Write(score.Score{Row: i}, shard.Kept{}); err != nil {
				t.Fatal(err)
			}
		}
		return w.Commit(ctx)
	}
	if c, err := commit(); err != nil || c.Existed {
		t.Fatalf("%+v (%v)", c, err)
	}
	if c, err := commit(); err != nil || !c.Existed || len(names(t, out)) != 1 {
		t.Fatalf("%+v (%v), %v", c, err, names(t, out))
	}
}

func TestCommitFails(t *testing.T) {
	out := t.TempDir()
	ctx := context.Background()
	job := crashJob(t, out)
	want := errors.New("the disk is full")
	w := linking(t, job, func(string, string) error { return want })
	for i := range job.Rows() {
		if err := w.Write(score.Score{Row: i}, shard.Kept{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(ctx); !errors.Is(err, want) || len(names(t, out)) != 0 {
		t.Fatalf("%v, left %v", err, names(t, out))
	}
}

func TestInspectAll(t *testing.T) {
	out := t.TempDir()
	var want shard.Totals
	for first := int64(0); first < shardtest.Rows; first += 10 {
		c, err := writeJob(t, shardtest.Job(t, shardtest.Fixtures(t, "required")[0], out, shardtest.TextOptions(),
			first, first+9), nil)
		if err != nil {
			t.Fatal(err)
		}
		want.Add(c.Totals)
	}
	bad := filepath.Join(out, "required", "rows-000000000300-000000000309.parquet")
	for name, body := range map[string]string{bad: "torn", filepath.Join(out, "notes.parquet"): "",
		filepath.Join(out, "required", ".rows-x.1.tmp"): ""} {
		if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got shard.Totals
	last := ""
	if err := InspectAll(context.Background(), out, func(path string, c shard.Committed, err error) error {
		if path <= last {
			t.Errorf("%s after %s", path, last)
		}
		last = path
		if (err != nil) != (path == bad) || (err == nil && c.Path != path) {
			t.Errorf("%s: %+v (%v)", path, c, err)
		}
		got.Add(c.Totals)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got != want || got.Documents != shardtest.Rows {
		t.Fatalf("%+v, want %+v", got, want)
	}
	stop := errors.New("stop")
	if err := InspectAll(context.Background(), out, func(string, shard.Committed,
		error) error {
		return stop
	}); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := InspectAll(ctx, out, func(string, shard.Committed, error) error { return nil }); !errors.Is(err,
		context.Canceled) {
		t.Fatal(err)
	}
	if err := InspectAll(context.Background(), filepath.Join(out, "nowhere"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func BenchmarkInspectAll(b *testing.B) {
	out := b.TempDir()
	c, err := writeJob(b, crashJob(b, out), nil)
	if err != nil {
		b.Fatal(err)
	}
	body, err := os.ReadFile(c.Path)
	if err != nil {
		b.Fatal(err)
	}
	const files = 2000
	for i := range files - 1 {
		name := filepath.Join(filepath.Dir(c.Path), fmt.Sprintf("rows-%012d-%012d.parquet", 1000+i, 1000+i))
		if err := os.WriteFile(name, body, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		n := 0
		if err := InspectAll(context.Background(), out, func(_ string, _ shard.Committed, err error) error {
			n++
			return err
		}); err != nil || n != files {
			b.Fatalf("%d (%v)", n, err)
		}
	}
	b.ReportMetric(files*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}
