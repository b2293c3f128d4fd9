// Command checkdemo compares the demo's scores with those that a float64
// reference gave: checkdemo OUT examples/demo/expected.json
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"surprisal/internal/score"
	"surprisal/internal/shard"
)

// nllTolerance is what a score may differ by, in nats a token.
const nllTolerance = 1e-4

// top1Tolerance is the share of tokens whose two best candidates may be so close
// that rounding decides between them; one token always may.
const top1Tolerance = 0.002

// maxPrinted bounds the differences that are printed.
const maxPrinted = 20

// row is one of the reference's scores.
type row struct {
	File   string  `json:"file"`
	ID     string  `json:"id"`
	Tokens int64   `json:"n_tokens"`
	Bytes  int64   `json:"n_bytes"`
	SumNLL float64 `json:"sum_nll"`
	Top1   int64   `json:"top1"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: checkdemo OUT expected.json")
		os.Exit(2)
	}
	out, err := filepath.Abs(os.Args[1])
	var report result
	if err == nil {
		report, err = check(context.Background(), out, os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "checkdemo:", err)
		os.Exit(1)
	}
	for _, d := range report.differ[:min(len(report.differ), maxPrinted)] {
		fmt.Println(d)
	}
	fmt.Printf("demo: %d of %d rows agree with the reference; largest difference %.2g nats a token\n",
		report.rows-len(report.differ), report.rows, report.worst)
	if len(report.differ) > 0 {
		os.Exit(1)
	}
}

// result is what check found.
type result struct {
	rows   int
	differ []string // one line for each row that differs
	worst  float64  // nats a token
}

// check reads every score file of out, in the order of their rows, beside the
// reference's rows of the same input file.
func check(ctx context.Context, out, expected string) (result, error) {
	var r result
	b, err := os.ReadFile(expected)
	if err != nil {
		return r, err
	}
	var want []row
	if err := json.Unmarshal(b, &want); err != nil {
		return r, fmt.Errorf("read %s: %w", expected, err)
	}
	byFile := make(map[string][]row)
	var files []string
	for _, w := range want {
		if byFile[w.File] == nil {
			files = append(files, w.File)
		}
		byFile[w.File] = append(byFile[w.File], w)
	}
	if len(want) == 0 {
		return r, fmt.Errorf("%s has no rows", expected)
	}
	for _, f := range files {
		got, err := readFile(ctx, filepath.Join(out, strings.TrimSuffix(f, ".parquet")))
		if err != nil {
			return r, err
		}
		if len(got) != len(byFile[f]) {
			return r, fmt.Errorf("%s: %d rows are scored, want %d", f, len(got), len(byFile[f]))
		}
		for i, w := range byFile[f] {
			r.rows++
			if got[i].Row != int64(i) {
				return r, fmt.Errorf("%s: score %d is of row %d", f, i, got[i].Row)
			}
			if err := compare(got[i], w, &r.worst); err != nil {
				r.differ = append(r.differ, fmt.Sprintf("%s row %d (%s): %v", f, i, w.ID, err))
			}
		}
	}
	return r, nil
}

// readFile reads the score files of one input file, in the order of their rows.
func readFile(ctx context.Context, dir string) ([]score.Score, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "rows-*.parquet"))
	if err != nil {
		return nil, err
	}
	slices.Sort(paths) // row numbers have a fixed width
	var scores []score.Score
	for _, p := range paths {
		err := shard.ReadScores(ctx, p, func(s score.Score) error {
			scores = append(scores, s)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return scores, nil
}

// compare holds one score to the reference's.
func compare(got score.Score, want row, worst *float64) error {
	switch {
	case got.Error != "":
		return fmt.Errorf("error %q", got.Error)
	case got.Tokens != want.Tokens:
		return fmt.Errorf("%d tokens, want %d", got.Tokens, want.Tokens)
	case got.Bytes != want.Bytes:
		return fmt.Errorf("%d bytes, want %d", got.Bytes, want.Bytes)
	case got.Truncated:
		return fmt.Errorf("truncated")
	}
	n := float64(max(want.Tokens, 1))
	d := math.Abs(got.SumNLL-want.SumNLL) / n
	*worst = max(*worst, d)
	if !(d <= nllTolerance) { // NaN too
		return fmt.Errorf("sum_nll %.6f, want %.6f: %.2g nats a token", got.SumNLL, want.SumNLL, d)
	}
	if d := math.Abs(float64(got.Top1 - want.Top1)); d > max(1, top1Tolerance*n) {
		return fmt.Errorf("n_top1 %d, want %d of %d tokens", got.Top1, want.Top1, want.Tokens)
	}
	return nil
}
