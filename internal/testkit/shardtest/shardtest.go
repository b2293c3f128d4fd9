package shardtest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/store"
	"surprisal/internal/testkit/storetest"
)

// The fixtures' content, as testdata/make_fixtures.py has it.
const Rows = 250

func Text(i int64) string { return strings.Repeat(fmt.Sprintf("row %d ü\n", i), int(i%5)) }

func Null(i int64) bool { return i%11 == 5 }

func IDs(i int64) []int32 {
	if i%9 == 4 {
		return nil
	}
	ids := []int32{}
	for k := range i % 6 {
		ids = append(ids, int32((i*31+k)%49152))
	}
	return ids
}

// Input makes the Input of a file.
func Input(t testing.TB, path string) score.Input {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(abs)
	if err != nil {
		t.Fatal(err)
	}
	return score.Input{Path: abs, Rel: filepath.Base(path), Size: st.Size(), Version: store.FileVersion(st)}
}

func TextOptions() score.Options {
	return score.Options{TextColumn: "text", Long: score.LongCarry, MaxLength: 2048, Special: score.SpecialText,
		Engine: score.EngineCPU}
}

func IDsOptions(column string) score.Options {
	o := TextOptions()
	o.TextColumn, o.IDsColumn = "", column
	return o
}

func Manifest(out string, o score.Options) *score.Manifest {
	m := &score.Manifest{
		Version: score.FormatVersion, Run: "run-1", Created: "2026-01-02T03:04:05Z", Program: "test", Out: out,
		Options: o,
		Model:   score.Model{Dir: "/m", Digest: "sha256:aa", Tokenizer: "/t.json", TokenizerDigest: "sha256:bb"},
	}
	m.ConfigDigest = score.ConfigDigest(m.Options, m.Model)
	return m
}

func Job(t testing.TB, path, out string, o score.Options, first, last int64) score.Job {
	t.Helper()
	return score.NewJob(Manifest(out, o), Input(t, path), first, last)
}

// Testdata is the folder of fixtures, seen from the tests of package shard and of
// those below it.
func Testdata() string {
	if _, err := os.Stat("testdata/kinds.parquet"); err == nil {
		return "testdata"
	}
	return filepath.Join("..", "testdata")
}

// Fixtures gives the paths of files that pyarrow wrote.
func Fixtures(t testing.TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(Testdata(), pattern+".parquet"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures %s (%v)", pattern, err)
	}
	return paths
}

// Ranges are row ranges that begin and end at and beside the boundaries of the
// fixtures' row groups.
var Ranges = [][2]int64{{0, 249}, {0, 0}, {249, 249}, {99, 100}, {100, 199}, {57, 203}, {1, 98}, {150, 249}}

// RemoteJob is job with its input at a URL.
func RemoteJob(t testing.TB, job score.Job, url string) score.Job {
	t.Helper()
	info, err := store.Stat(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	in := score.Input{Path: info.Name, Rel: job.Input.Rel, Size: info.Size, Version: info.Version}
	return score.NewJob(Manifest(job.Out, job.Options), in, job.First, job.Last)
}

func Read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// OneInTwenty fails with one after another of all faults but a wait of seconds.
func OneInTwenty() func(int, *http.Request) storetest.Fault {
	rng := rand.New(rand.NewPCG(5, 5)) // the proxy calls one at a time
	faults := []storetest.Fault{storetest.Busy, storetest.Reset, storetest.Short, storetest.Slow, storetest.Lost}
	return func(int, *http.Request) storetest.Fault {
		if rng.IntN(20) > 0 {
			return storetest.None
		}
		return faults[rng.IntN(len(faults))]
	}
}

func PerToken() score.Options {
	o := TextOptions()
	o.PerToken, o.Keep = true, []string{"*"}
	return o
}

// Selections of fixtureRows rows.
var Selections = map[string]func(row int64) bool{
	"all":   func(int64) bool { return true },
	"none":  func(int64) bool { return false },
	"one":   func(r int64) bool { return r == 131 },
	"odd":   func(r int64) bool { return r%2 == 1 },
	"runs":  func(r int64) bool { return r/37%2 == 0 },
	"head":  func(r int64) bool { return r < 100 },
	"most":  func(r int64) bool { return r != 77 },
	"mixed": func(r int64) bool { return rand.New(rand.NewPCG(1, uint64(r))).IntN(3) == 0 },
}
