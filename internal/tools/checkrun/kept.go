package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// compareKept holds every column that is not the score file's own to the input's
// of its name.
func (c *checker) compareKept(j job, t, in *table) {
	type pair struct{ out, in int }
	var pairs []pair
	for i, name := range t.columns {
		top, _, _ := strings.Cut(name, ".")
		if slices.Contains(c.m.own(), top) || c.m.Options.PerToken && (top == "token_ids" || top == "token_nll") {
			continue
		}
		k := slices.Index(in.columns, name)
		if k < 0 {
			c.kept.breaks("%s: column %s is not in %s", j.output, name, c.m.Files[j.file].Input.Path)
			continue
		}
		pairs = append(pairs, pair{i, k})
	}
	if len(pairs) == 0 {
		return
	}
	ours := make(chan []parquet.Row) // batches of scored rows, in order
	done := make(chan struct{})      // closed when no more are wanted
	failed := make(chan error, 1)    // of the reading goroutine
	go func() {
		defer close(ours)
		var batch []parquet.Row
		send := func() error {
			select {
			case ours <- batch:
				batch = nil
				return nil
			case <-done:
				return errors.New("stopped")
			}
		}
		err := t.rows(0, t.NumRows()-1, func(_ int64, v []parquet.Value) error {
			batch = append(batch, parquet.Row(v).Clone())
			if len(batch) == 64 {
				return send()
			}
			return nil
		})
		if err == nil && len(batch) > 0 {
			err = send()
		}
		failed <- err
	}()
	var batch []parquet.Row
	err := in.rows(j.first, j.last, func(row int64, want []parquet.Value) error {
		if len(batch) == 0 {
			var ok bool
			if batch, ok = <-ours; !ok {
				return fmt.Errorf("no scored row for row %d", row)
			}
		}
		have := batch[0]
		batch = batch[1:]
		c.kept.Checked++
		for _, p := range pairs {
			if !slices.EqualFunc(column(have, p.out), column(want, p.in), sameValue) {
				return fmt.Errorf("row %d: column %s is %.80q, the input has %.80q", row, t.columns[p.out],
					fmt.Sprint(column(have, p.out)), fmt.Sprint(column(want, p.in)))
			}
		}
		return nil
	})
	close(done)
	if other := <-failed; err == nil {
		err = other
	}
	if err != nil {
		c.kept.breaks("%s: %v", j.output, err)
	}
}

// column are a row's values of one leaf.
func column(row []parquet.Value, leaf int) []parquet.Value {
	var v []parquet.Value
	for _, x := range row {
		if x.Column() == leaf {
			v = append(v, x)
		}
	}
	return v
}

func sameValue(a, b parquet.Value) bool {
	return a.RepetitionLevel() == b.RepetitionLevel() && a.DefinitionLevel() == b.DefinitionLevel() &&
		a.Kind() == b.Kind() && a.IsNull() == b.IsNull() && string(a.Bytes()) == string(b.Bytes())
}
