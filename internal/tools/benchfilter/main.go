// Command benchfilter times dispatcher filter beside DuckDB doing the same on a
// generated corpus: FILES parquet files of ROWS short rows, written by pyarrow,
// and scores that no model made. DuckDB reads a corpus that has the score columns
// in it already, so that it need not join; the dispatcher reads the corpus and OUT.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"surprisal/internal/sift/fakescores"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "benchfilter:", err)
		os.Exit(1)
	}
}

type figure struct {
	What    string  `json:"what"`
	Seconds float64 `json:"seconds"`
	Rows    int64   `json:"rows_per_second"`
	CPU     float64 `json:"cpu_seconds"`
	RSS     int64   `json:"peak_rss_mb"`
	Kept    string  `json:"kept,omitempty"`
}

func run() error {
	dir := flag.String("dir", ".build/bench-filter", "folder for the corpus; it is kept, so that a second run starts at once")
	files := flag.Int("files", 10, "files")
	rows := flag.Int("rows", 1_000_000, "rows a file")
	bin := flag.String("dispatcher", "bin/dispatcher", "the program to time")
	python := flag.String("python", "python3", "a Python with pyarrow, numpy and duckdb")
	where := flag.String("where", "perplexity < p60 and n_tokens >= 10", "what passes")
	threads := flag.Int("threads", runtime.NumCPU(), "threads of either")
	repeat := flag.Int("repeat", 3, "the best of so many is told")
	flag.Parse()
	corpus, out, merged := filepath.Join(*dir, "corpus"), filepath.Join(*dir, "out"), filepath.Join(*dir, "merged")
	script := "internal/tools/benchfilter/corpus.py"
	if _, err := os.Stat(merged); err != nil {
		if err := os.RemoveAll(*dir); err != nil {
			return err
		}
		if err := command(*python, script, "make", corpus, fmt.Sprint(*files), fmt.Sprint(*rows)).Run(); err != nil {
			return fmt.Errorf("make the corpus (needs pyarrow, numpy and duckdb): %w", err)
		}
		if _, err := fakescores.Write(context.Background(), []string{corpus}, out, fakescores.Options{}); err != nil {
			return err
		}
		if err := command(*bin, "export", out, "--as", "merged", "--to", merged).Run(); err != nil {
			return fmt.Errorf("merge the scores in for DuckDB: %w", err)
		}
	}
	all := int64(*files) * int64(*rows)
	best := map[string]figure{}
	for range *repeat {
		kept := filepath.Join(*dir, "kept")
		a, err := timed("dispatcher filter", kept, *bin, "filter", out, "--where", *where, "--to", kept)
		if err != nil {
			return err
		}
		duck := filepath.Join(*dir, "duck")
		b, err := timed("duckdb", duck, *python, script, "filter", merged, duck, *where, fmt.Sprint(*threads))
		if err != nil {
			return err
		}
		for _, f := range []figure{a, b} {
			f.Rows = int64(float64(all) / f.Seconds)
			if was, ok := best[f.What]; !ok || f.Seconds < was.Seconds {
				best[f.What] = f
			}
		}
		if out, err := exec.Command(*python, script, "compare", kept, duck).CombinedOutput(); err != nil {
			return fmt.Errorf("the two kept different rows: %s", out)
		}
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	ours, theirs := best["dispatcher filter"], best["duckdb"]
	return enc.Encode(map[string]any{
		"files": *files, "rows": all, "threads": *threads, "where": *where, "figures": []figure{ours, theirs},
		"speed_beside_duckdb": theirs.Seconds / ours.Seconds, "cpu_beside_duckdb": theirs.CPU / ours.CPU,
	})
}

func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	return cmd
}

// timed runs a command that writes into dir, which it empties before.
func timed(what, dir, name string, args ...string) (figure, error) {
	if err := os.RemoveAll(dir); err != nil {
		return figure{}, err
	}
	cmd := command(name, args...)
	started := time.Now()
	if err := cmd.Run(); err != nil {
		return figure{}, fmt.Errorf("%s: %w", what, err)
	}
	use, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	f := figure{What: what, Seconds: time.Since(started).Seconds()}
	if ok {
		f.RSS = use.Maxrss >> 10
		f.CPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	}
	fmt.Fprintf(os.Stderr, "%-18s %6.1f s  %6.1f s of CPU  %5d MB\n", what, f.Seconds, f.CPU, f.RSS)
	return f, nil
}
