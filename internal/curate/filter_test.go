package curate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"surprisal/internal/curate/where"
	"surprisal/internal/dispatch"
	"surprisal/internal/quantile"
	"surprisal/internal/score"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/testkit/fakescores"
	"surprisal/internal/testkit/pythontest"
	"surprisal/internal/usage"
)

const demo = "../../examples/demo/corpus"

// scored gives a corpus with scores that no model made.
func scored(t testing.TB, inputs string, o fakescores.Options) *Corpus {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	abs, err := filepath.Abs(inputs)
	if err != nil {
		t.Fatal(err)
	}
	if o.JobTokens == 0 {
		o.JobTokens = 20_000 // several jobs a file
	}
	if _, err := fakescores.Write(t.Context(), []string{abs}, out, o); err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), out, o.Skip != nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// python gives a Python with pyarrow, duckdb and numpy.
func python(t *testing.T) string { return pythontest.With(t, "pyarrow", "duckdb", "numpy") }

// TestFilterKeepsWhatNumPyKeeps compares rows with NumPy's, in all columns.
func TestFilterKeepsWhatNumPyKeeps(t *testing.T) {
	py := python(t)
	c := scored(t, demo, fakescores.Options{})
	for _, tc := range []struct{ column, p, by string }{
		{"perplexity", "60", "dump"}, {"perplexity", "60", ""}, {"bits_per_byte", "5", "language"}, {"sum_nll", "99.5",
			"dump"},
		{"n_tokens", "50", ""}, {"perplexity", "0", ""}, {"perplexity", "100", "dump"},
	} {
		o := FilterOptions{Where: tc.column + " < p" + tc.p + " and perplexity is not null",
			To: filepath.Join(t.TempDir(),
				"kept"), WithScores: tc.p == "60"}
		args := []string{"testdata/filtered.py", c.Dir, demo, o.To, tc.column, tc.p}
		if tc.by != "" {
			o.By = []string{tc.by}
			args = append(args, tc.by)
		}
		if tc.column == "n_tokens" || tc.column == "sum_nll" { // failed rows have 0 tokens, and are in NumPy's
			o.Where = tc.column + " < p" + tc.p
		}
		r, err := c.Filter(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		b, err := exec.Command(py, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %s", tc, b)
		}
		if got := strings.TrimSpace(string(b)); err == nil && got != fmt.Sprint(r.Total.Kept) {
			t.Errorf("%v: kept %d rows, NumPy %s", tc, r.Total.Kept, got)
		}
		if dry, err := c.Filter(t.Context(), FilterOptions{Where: o.Where, By: o.By, DryRun: true}); err != nil ||
			dry.Total.Kept != r.Total.Kept || dry.Total.KeptTokens != r.Total.KeptTokens {
			t.Errorf("%v: a dry run gives %+v (%v), the run %+v", tc, dry, err, r.Total)
		}
	}
}

// TestThresholdsInPasses: the passes give what sorting gives, to the last bit.
func TestThresholdsInPasses(t *testing.T) {
	c := scored(t, demo, fakescores.Options{})
	names := []string{"perplexity", "n_tokens", "sum_nll", "dump"}
	kinds, err := c.Kinds(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	var want []where.Percentile
	for _, col := range names[:3] {
		for _, p := range []float64{0, 1, 30, 50, 60, 99.9, 100} {
			want = append(want, where.Percentile{Column: col, P: p})
		}
	}
	for _, by := range [][]string{nil, {"dump"}, {"dump", "language"}} {
		var first map[string][]float64
		for _, held := range []int{quantile.Held, 0, 1, 7, 100} {
			g := newGroups(by)
			got, err := c.thresholds(t.Context(), g, want, kinds, held)
			if err != nil {
				t.Fatal(err)
			}
			named := map[string][]float64{}
			for i := range g.len() {
				for k := range want {
					named[g.name(i)] = append(named[g.name(i)], got[k][i])
				}
			}
			if first == nil {
				first = named
			}
			for name, v := range first {
				if !slices.Equal(v, named[name]) {
					t.Errorf("by %v, %d held: %s is %v, sorting gives %v", by, held, name, named[name], v)
				}
			}
		}
	}
}

func isUsage(err error) bool {
	var u *usage.Error
	return errors.As(err, &u) && !strings.Contains(err.Error(), "\n")
}

// TestMistakes: each is one line that says what to do, and writes nothing.
func TestMistakes(t *testing.T) {
	c := scored(t, demo, fakescores.Options{})
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(c.Dir, link); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	input, err := filepath.Abs(demo)
	if err != nil {
		t.Fatal(err)
	}
	for what, o := range map[string]FilterOptions{
		"no column":         {Where: "nope < 3", To: fresh},
		"there is no":       {Where: "perplexity < 3", By: []string{"nope"}, To: fresh},
		"once":              {Where: "perplexity < 3", By: []string{"dump", "dump"}, To: fresh},
		"at character":      {Where: "perplexity <", To: fresh},
		"compared":          {Where: "perplexity < 'x'", To: fresh},
		"--to":              {Where: "perplexity < 3"},
		"inside the scores": {Where: "perplexity < 3", To: filepath.Join(c.Dir, "x")},
		"inside":            {Where: "perplexity < 3", To: filepath.Join(link, "x")},
		"holds the scores":  {Where: "perplexity < 3", To: filepath.Dir(c.Dir)},
		"holds the input":   {Where: "perplexity < 3", To: input},
		"is not empty":      {Where: "perplexity < 3", To: full},
	} {
		if _, err := c.Filter(t.Context(), o); !isUsage(err) || !strings.Contains(err.Error(), strings.TrimPrefix(what,
			"no column")) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := os.Stat(fresh); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused filter left a folder: %v", err)
	}
	if _, err := Open(t.Context(), t.TempDir(), false); !isUsage(err) || !strings.Contains(err.Error(),
		score.ManifestName) {
		t.Errorf("no manifest: %v", err)
	}
	if _, err := c.Filter(t.Context(), FilterOptions{Where: "perplexity < 30", To: fresh}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Filter(t.Context(), FilterOptions{Where: "perplexity < 31", To: fresh}); !isUsage(err) ||
		!strings.Contains(err.Error(), "another command") {
		t.Errorf("another filter into the same folder: %v", err)
	}
}

// TestPartial: what has no score is told, and left out only when asked.
func TestPartial(t *testing.T) {
	skip := func(j score.Job) bool { return j.First > 0 && strings.HasPrefix(j.Input.Rel, "000") }
	c := scored(t, demo, fakescores.Options{Skip: skip})
	if _, err := Open(t.Context(), c.Dir, false); !isUsage(err) || !strings.Contains(err.Error(), fmt.Sprintf("%d rows",
		c.MissingRows)) || !strings.Contains(err.Error(), "--partial") {
		t.Errorf("an incomplete run: %v", err)
	}
	to := filepath.Join(t.TempDir(), "kept")
	r, err := c.Filter(t.Context(), FilterOptions{Where: "error is null or error is not null", To: to,
		WithScores: true})
	if err != nil {
		t.Fatal(err)
	}
	all := int64(0)
	for _, f := range c.Manifest.Files {
		all += f.Rows
	}
	if r.Total.Kept != all-c.MissingRows || r.Total.Rows != r.Total.Kept || c.MissingRows == 0 {
		t.Errorf("kept %d of %d rows, %d are missing", r.Total.Kept, all, c.MissingRows)
	}
	if r, err = c.Filter(t.Context(), FilterOptions{Where: "perplexity > 0 or not perplexity > 0 or n_tokens > 1000000",
		DryRun: true}); err != nil || r.Total.Kept != r.Total.Rows-r.Total.Unscored || r.Total.Unscored == 0 {
		t.Errorf("rows without a score: %+v %v", r.Total, err)
	}
}

// TestMain lets the test program be a filter that is killed.
func TestMain(m *testing.M) {
	if out := os.Getenv("CURATE_TEST_OUT"); out != "" {
		c, err := Open(context.Background(), out, false)
		if err == nil {
			_, err = c.Filter(context.Background(), killedOptions(os.Getenv("CURATE_TEST_TO")))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func killedOptions(to string) FilterOptions {
	return FilterOptions{Where: "perplexity < p60", By: []string{"dump"}, To: to, WithScores: true}
}

// TestKilled kills filters at any moment: nothing half-written shows, and the
// same command ends with the same bytes.
func TestKilled(t *testing.T) {
	c := scored(t, demo, fakescores.Options{})
	want := filepath.Join(t.TempDir(), "whole")
	if _, err := c.Filter(t.Context(), killedOptions(want)); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "kept")
	killed := 0
	for i := range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CURATE_TEST_OUT="+c.Dir, "CURATE_TEST_TO="+to)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(5+7*i)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		if cmd.Wait() != nil {
			killed++
		}
		timer.Stop()
		sameFiles(t, want, to, false)
	}
	t.Logf("%d killed", killed)
	if _, err := c.Filter(t.Context(), killedOptions(to)); err != nil {
		t.Fatal(err)
	}
	sameFiles(t, want, to, true)
}

// sameFiles compares the files that are in got with those of want.
func sameFiles(t *testing.T, want, got string, all bool) {
	t.Helper()
	err := filepath.WalkDir(want, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == score.SuccessName {
			return err
		}
		rel, _ := filepath.Rel(want, p)
		a, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(got, rel))
		if errors.Is(err, fs.ErrNotExist) && !all {
			return nil
		}
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs from the one of a run that was not killed (%v)", rel, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFilterAgain: a filter of what a filter kept is no different.
func TestFilterAgain(t *testing.T) {
	c := scored(t, demo, fakescores.Options{})
	to := filepath.Join(t.TempDir(), "kept")
	r, err := c.Filter(t.Context(), FilterOptions{Where: "perplexity < p60", To: to})
	if err != nil {
		t.Fatal(err)
	}
	again := scored(t, to, fakescores.Options{})
	second := filepath.Join(t.TempDir(), "twice")
	if r2, err := again.Filter(t.Context(), FilterOptions{Where: "n_tokens >= 0", To: second}); err != nil ||
		r2.Total.Kept != r.Total.Kept {
		t.Fatalf("%+v %v", r2, err)
	}
	d, err := outdir.OpenDest(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f, err := d.Parquet(t.Context(), again.Files[0].Input.Rel)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, _ := f.Metadata("surprisal.where"); got != "n_tokens >= 0" {
		t.Errorf("the file says that it was filtered by %q", got)
	}
}

// TestPercentilesAgree: the summary of a run, filter and report have one median.
func TestPercentilesAgree(t *testing.T) {
	c := scored(t, demo, fakescores.Options{})
	done, err := dispatch.Reconcile(t.Context(), c.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	s, err := dispatch.Summarize(t.Context(), c.Manifest, done, nil, done.Totals, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]float64{"p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95} {
		exact, err := c.Percentiles(t.Context(), "perplexity", []float64{p})
		if err != nil || s.Perplexity[name] != exact[0] {
			t.Errorf("%s: the summary has %v, the filter %v (%v)", name, s.Perplexity[name], exact, err)
		}
	}
}
