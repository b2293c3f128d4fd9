package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/score"
)

// The fixtures' content, as testdata/make_fixtures.py has it.
const fixtureRows = 250

func fixtureText(i int64) string { return strings.Repeat(fmt.Sprintf("row %d ü\n", i), int(i%5)) }

func fixtureNull(i int64) bool { return i%11 == 5 }

func fixtureIDs(i int64) []int32 {
	if i%9 == 4 {
		return nil
	}
	ids := []int32{}
	for k := range i % 6 {
		ids = append(ids, int32((i*31+k)%49152))
	}
	return ids
}

// inputOf makes the Input of a file.
func inputOf(t testing.TB, path string) score.Input {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(abs)
	if err != nil {
		t.Fatal(err)
	}
	return score.Input{Path: abs, Rel: filepath.Base(path), Size: st.Size(), Version: fileVersion(st)}
}

func textOptions() score.Options {
	return score.Options{TextColumn: "text", Long: score.LongCarry, MaxLength: 2048, Special: score.SpecialText, Engine: score.EngineCPU}
}

func idsOptions(column string) score.Options {
	o := textOptions()
	o.TextColumn, o.IDsColumn = "", column
	return o
}

func testManifest(out string, o score.Options) *score.Manifest {
	m := &score.Manifest{
		Version: score.FormatVersion, Run: "run-1", Created: "2026-01-02T03:04:05Z", Program: "test", Out: out, Options: o,
		Model: score.Model{Dir: "/m", Digest: "sha256:aa", Tokenizer: "/t.json", TokenizerDigest: "sha256:bb"},
	}
	m.ConfigDigest = score.ConfigDigest(m.Options, m.Model)
	return m
}

func testJob(t testing.TB, path, out string, o score.Options, first, last int64) score.Job {
	t.Helper()
	return score.NewJob(testManifest(out, o), inputOf(t, path), first, last)
}

// readAll reads a job's rows.
func readAll(t testing.TB, job score.Job) []Row {
	t.Helper()
	rows, err := tryReadAll(job)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func tryReadAll(job score.Job) ([]Row, error) {
	r, err := OpenRange(context.Background(), job)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var rows []Row
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		rows = append(rows, row)
	}
}

func fixtures(t testing.TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", pattern+".parquet"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixtures %s (%v)", pattern, err)
	}
	return paths
}

// ranges are row ranges that begin and end at and beside the boundaries of the
// fixtures' row groups.
var ranges = [][2]int64{{0, 249}, {0, 0}, {249, 249}, {99, 100}, {100, 199}, {57, 203}, {1, 98}, {150, 249}}
