package e2e

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"
)

// idsRow is ready-made token ids.
type idsRow struct {
	IDs []int32 `parquet:"input_ids,list"`
}

// TestReadyMadeIDs scores golden checkpoints, which have no tokenizer, through
// the whole pipeline in every long mode.
func TestReadyMadeIDs(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"kla", "gva", "plain", "neg_eigval", "no_conv"} {
		golden := filepath.Join("../testdata/goldens", name)
		var expected struct {
			Docs []struct {
				IDs    []int32 `json:"ids"`
				SumNLL float64 `json:"sum_nll"`
				Scale1 float64 `json:"sum_nll_query_scale_1"`
			} `json:"docs"`
		}
		readJSON(t, filepath.Join(golden, "expected.json"), &expected)
		dir := t.TempDir()
		rows := []idsRow{{}, {IDs: []int32{7}}, {IDs: []int32{1, 100000}}, {IDs: []int32{-1, 2}}}
		for _, d := range expected.Docs {
			rows = append(rows, idsRow{d.IDs})
		}
		writeParquet(t, filepath.Join(dir, "in", "ids.parquet"), rows, 4)
		check := func(mode string, sum func(i int) float64, flags ...string) {
			t.Run(name+"/"+mode, func(t *testing.T) {
				out := filepath.Join(dir, mode)
				args := append([]string{"run", "--model", golden, "--out", out, "--ids-column", "input_ids"}, flags...)
				dispatcher(t, append(args, filepath.Join(dir, "in"))...).want(t, 0)
				got := scores(t, out)
				for i, problem := range []string{"", "", "ids out of range", "ids out of range"} {
					if r := got[i]; r.Tokens != 0 || r.Bytes != -1 || (problem == "") != (r.Error == "") {
						t.Errorf("row %d: %+v, want error %q", i, r, problem)
					}
				}
				for i := range expected.Docs {
					r := got[i+4]
					if off := math.Abs(r.SumNLL-sum(i)) / float64(r.Tokens); !(off <= 5e-5) || r.Error != "" {
						t.Errorf("document %d: %+v, want %f (off by %.1e a token)", i, r, sum(i), off)
					}
				}
			})
		}
		check("plain", func(i int) float64 { return expected.Docs[i].SumNLL })
		check("scale1", func(i int) float64 { return expected.Docs[i].Scale1 }, "--query-scale", "1")
		if name != "kla" {
			continue
		}
		var w struct {
			MaxLength int                  `json:"max_length"`
			Docs      []map[string]float64 `json:"docs"`
		}
		readJSON(t, filepath.Join(golden, "windows.json"), &w)
		for _, mode := range []string{"carry", "window", "truncate"} {
			check(mode, func(i int) float64 { return w.Docs[i][mode+"_sum_nll"] },
				"--long", mode, "--max-length", fmt.Sprint(w.MaxLength), "--batch-tokens", "64", "--per-token")
		}
	}
}
