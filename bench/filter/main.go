// Command benchfilter times dispatcher filter beside DuckDB doing the same on a
// generated corpus: FILES parquet files of ROWS short rows, written by pyarrow,
// and scores that no model made. DuckDB reads a corpus that has the score columns
// in it already, so that it need not join; the dispatcher reads the corpus and OUT.
//
// With -distinct N, only N input files are generated, and the corpus is hard links
// to them. Each link has score files of its own, which are copies of the first
// one's under the link's jobs; all that is kept is written.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/shard/pq"
	"surprisal/internal/testkit/fakescores"
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
	dir := flag.String("dir", ".build/bench-filter",
		"folder for the corpus; it is kept, so that a second run starts at once")
	files := flag.Int("files", 10, "files")
	rows := flag.Int("rows", 1_000_000, "rows a file")
	bin := flag.String("dispatcher", "bin/dispatcher", "the program to time")
	python := flag.String("python", "python3", "a Python with pyarrow, numpy and duckdb")
	where := flag.String("where", "perplexity < p60 and n_tokens >= 10", "what passes")
	threads := flag.Int("threads", runtime.NumCPU(), "threads of either")
	repeat := flag.Int("repeat", 3, "the best of so many is told")
	distinct := flag.Int("distinct", 0,
		"how many of the input files are generated; the others are hard links to them (default all)")
	only := flag.Bool("prepare", false, "only make what is missing of the corpus")
	flag.Parse()
	b := bench{*dir, *bin, *python, "bench/filter/corpus.py", *files, min(*files, cmp.Or(*distinct, *files)), *rows}
	if err := b.prepare(); err != nil || *only {
		return err
	}
	all := int64(*files) * int64(*rows)
	best, digests := map[string]figure{}, map[string]string{}
	for range *repeat {
		for _, side := range []struct {
			what string
			args []string
		}{
			{"dispatcher filter", []string{*bin, "filter", b.path("out"), "--where", *where, "--to", b.path("kept")}},
			{"duckdb", []string{*python, b.script, "filter", b.path("merged"), b.path("kept"), *where,
				fmt.Sprint(*threads)}},
		} {
			f, err := timed(side.what, b.path("kept"), side.args[0], side.args[1:]...)
			if err != nil {
				return err
			}
			f.Rows = int64(float64(all) / f.Seconds)
			if was, ok := best[f.What]; !ok || f.Seconds < was.Seconds {
				best[f.What] = f
			}
			kept, err := command(*python, b.script, "digest", b.path("kept")).Output()
			if err != nil {
				return err
			}
			digests[side.what] = string(kept)
		}
		if digests["duckdb"] != digests["dispatcher filter"] {
			return fmt.Errorf("the two kept different rows: %v", digests)
		}
	}
	if err := os.RemoveAll(b.path("kept")); err != nil {
		return err
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	ours, theirs := best["dispatcher filter"], best["duckdb"]
	return enc.Encode(map[string]any{
		"files": *files, "distinct_files": b.distinct, "rows": all, "threads": *threads, "where": *where,
		"figures":             []figure{ours, theirs},
		"speed_beside_duckdb": theirs.Seconds / ours.Seconds, "cpu_beside_duckdb": theirs.CPU / ours.CPU,
	})
}

// bench is a corpus in a folder: inputs, scores (out), and inputs with scores (merged).
type bench struct {
	dir, bin, python, script string
	files, distinct, rows    int
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// prepare makes what is not there yet, so that it may be cut off.
func (b *bench) prepare() error {
	for _, step := range []struct {
		name string
		make func(to string) error
	}{
		{"distinct", func(to string) error {
			return command(b.python, b.script, "make", to, fmt.Sprint(b.distinct), fmt.Sprint(b.rows)).Run()
		}},
		{"distinct-merged", func(to string) error {
			if err := fake(b.path("distinct"), b.path("distinct-out")); err != nil {
				return err
			}
			return command(b.bin, "export", b.path("distinct-out"), "--as", "merged", "--to", to).Run()
		}},
		{"corpus", func(to string) error { return b.link(b.path("distinct"), to) }},
		{"merged", func(to string) error { return b.link(b.path("distinct-merged"), to) }},
	} {
		to := b.path(step.name)
		if _, err := os.Stat(to); err == nil {
			continue
		}
		if err := errors.Join(os.MkdirAll(b.dir, 0o777), os.RemoveAll(to+".part")); err != nil {
			return err
		}
		if err := step.make(to + ".part"); err != nil {
			return fmt.Errorf("make %s (needs pyarrow, numpy and duckdb): %w", to, err)
		}
		if err := os.Rename(to+".part", to); err != nil {
			return err
		}
	}
	if b.distinct == b.files {
		return fake(b.path("corpus"), b.path("out"))
	}
	return b.copyScores()
}

// copyScores gives each link the scores of what it is a link to.
func (b *bench) copyScores() error {
	ctx := context.Background()
	none := fakescores.Options{Skip: func(score.Job) bool { return true }}
	m, err := fakescores.Write(ctx, []string{b.path("corpus")}, b.path("out"), none)
	if err != nil {
		return err
	}
	from, err := outdir.ReadManifest(ctx, filepath.Dir(m.Out)+"/distinct-out")
	if err != nil {
		return err
	}
	to, err := outdir.OpenDest(ctx, m.Out)
	if err != nil {
		return err
	}
	defer to.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range m.Files {
		g.Go(func() error {
			theirs := from.FileJobs(i % b.distinct)
			for k, j := range m.FileJobs(i) {
				if there, err := to.Exists(ctx, j.Output); err != nil {
					return err
				} else if there {
					continue
				}
				t, err := shard.OpenScores(ctx, filepath.Join(from.Out, theirs[k].Output))
				if err != nil {
					return err
				}
				err = to.CopyRows(ctx, j.Output, pq.Copy{
					In: t, Metadata: [][2]string{{"surprisal.job", j.ID}, {"surprisal.input.rel",
						j.Input.Rel}}, Slots: make(chan struct{}, 1),
				})
				if err := errors.Join(err, t.Close()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func fake(corpus, out string) error {
	_, err := fakescores.Write(context.Background(), []string{corpus}, out, fakescores.Options{})
	return err
}

// link has as many files in to as asked for, each one of from's.
func (b *bench) link(from, to string) error {
	if err := os.Mkdir(to, 0o777); err != nil {
		return err
	}
	for i := range b.files {
		if err := os.Link(filepath.Join(from, fmt.Sprintf("%03d.parquet", i%b.distinct)),
			filepath.Join(to, fmt.Sprintf("%03d.parquet", i))); err != nil {
			return err
		}
	}
	return nil
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
