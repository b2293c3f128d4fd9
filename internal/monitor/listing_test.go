package monitor

import (
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
	"surprisal/internal/shard/outdir"
)

// manifestOf makes a manifest of files × jobs jobs of ten rows, and writes it.
func manifestOf(t testing.TB, files, jobs int) *score.Manifest {
	t.Helper()
	out := t.TempDir()
	m := &score.Manifest{
		Version: score.FormatVersion, Run: "run-1", Created: "2026-01-02T03:04:05Z", Program: "test", Out: out,
		Inputs: []string{"/in"},
		Options: score.Options{TextColumn: "text", Long: score.LongCarry, MaxLength: 64, Special: score.SpecialText,
			Engine: score.EngineCPU},
		Model: score.Model{Dir: "/m", Digest: "sha256:aa"},
	}
	m.ConfigDigest = score.ConfigDigest(m.Options, m.Model)
	for i := range files {
		f := score.FilePlan{Rows: int64(jobs) * 10, RowGroups: 1}
		f.Input = score.Input{Path: fmt.Sprintf("/in/f%04d.parquet", i), Rel: fmt.Sprintf("f%04d.parquet", i), Size: 1,
			Version: "1-1"}
		for c := range jobs {
			f.Cuts = append(f.Cuts, int64(c)*10)
		}
		m.Files = append(m.Files, f)
	}
	if err := outdir.WriteManifest(t.Context(), out, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestListMillionJobs lists a million jobs in bounded memory.
func TestListMillionJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("short: takes seconds")
	}
	m := manifestOf(t, 1000, 1000)
	out := m.Out
	m = nil
	runtime.GC()
	var most atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			var s runtime.MemStats
			runtime.ReadMemStats(&s)
			most.Store(max(most.Load(), s.HeapInuse))
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	n, began := 0, time.Now()
	more, err := ListJobs(t.Context(), ListRequest{Out: out, States: []record.State{StateQueued}},
		func(j JobLine) error {
			n++
			return nil
		})
	close(stop)
	<-done
	if err != nil || more || n != 1_000_000 {
		t.Fatalf("%d jobs, more %t, %v", n, more, err)
	}
	t.Logf("%d jobs in %s, %d MB at most", n, time.Since(began).Round(time.Millisecond), most.Load()>>20)
	if most.Load() > 400<<20 {
		t.Errorf("%d MB of heap", most.Load()>>20)
	}
	n = 0
	more, err = ListJobs(t.Context(), ListRequest{Out: out, Limit: 5}, func(JobLine) error { n++; return nil })
	if err != nil || !more || n != 5 {
		t.Errorf("limit 5: %d jobs, more %t, %v", n, more, err)
	}
	if _, err := ListJobs(t.Context(), ListRequest{Out: filepath.Join(out, "none")}, nil); err == nil {
		t.Error("no manifest, no error")
	}
}
