package model_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"surprisal/internal/model"
)

// benchEnv makes the test binary load a folder to bfloat16 and print its seconds.
const benchEnv = "SURPRISAL_TEST_BENCH"

func benchChild(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	start := time.Now()
	cfg, err := model.LoadConfig(dir)
	fail(err)
	c, err := model.Open(dir, cfg)
	fail(err)
	opened := time.Since(start)
	weights := map[string][]uint16{}
	for _, s := range cfg.Shapes() {
		t, err := c.Tensor(s.Name)
		fail(err)
		weights[s.Name] = make([]uint16, t.Len())
		fail(t.BFloat16(weights[s.Name]))
	}
	fail(c.Close())
	fail(json.NewEncoder(os.Stdout).Encode([]float64{opened.Seconds(), time.Since(start).Seconds(),
		float64(peakMiB())}))
	os.Exit(0)
}

// BenchmarkOpen1B3 opens the folder SURPRISAL_BENCH_CKPT and converts all of it
// to bfloat16 held in memory, in a process of its own. Reports seconds and that
// process's peak resident memory, which for 5.8 GB of float32 must stay below 4 GiB.
// Make a folder with: go run ./internal/tools/genckpt --config gdn2_kla_1.3B --out DIR
func BenchmarkOpen1B3(b *testing.B) {
	dir := os.Getenv("SURPRISAL_BENCH_CKPT")
	if dir == "" {
		b.Skip("SURPRISAL_BENCH_CKPT names no checkpoint folder")
	}
	for b.Loop() {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), benchEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			b.Fatal(err)
		}
		var s [3]float64
		if err := json.Unmarshal(out, &s); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(s[0]*1000, "open-ms")
		b.ReportMetric(s[1], "s")
		b.ReportMetric(s[2], "peak-MiB")
		if s[2] >= 4096 {
			b.Fatalf("peak resident memory is %v MiB", s[2])
		}
	}
}
