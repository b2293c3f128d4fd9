package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/pq"
	"surprisal/internal/store"
)

// Verify reads all of a job's score file: that it is the job's, that every byte
// is as it was written, that rows, numbers, digests and totals agree, and, with
// input, that the kept columns are still what the input has. An error wraps
// ErrConflict when the file is another job's, ErrCorrupt when it is damaged,
// ErrInputChanged when the input is no longer the planned one, and fs.ErrNotExist
// when there is no file.
func Verify(ctx context.Context, job score.Job, input bool) (Committed, error) {
	path := place.Join(job.Out, job.Output)
	c, err := verify(ctx, path, job, input)
	if err != nil {
		return c, fmt.Errorf("verify %s: %w", path, err)
	}
	return c, nil
}

func verify(ctx context.Context, path string, job score.Job, input bool) (Committed, error) {
	if !place.IsURL(path) { // a link is no output of ours
		if st, err := os.Lstat(path); err != nil {
			return Committed{}, err
		} else if !st.Mode().IsRegular() {
			return Committed{}, pq.Corruptf("it is not a regular file")
		}
	}
	f, err := store.OpenFile(ctx, path)
	if err != nil {
		return Committed{}, err
	}
	defer f.Close()
	c, err := InspectFile(f, f.Size)
	if err != nil {
		if !errors.Is(err, pq.ErrCorrupt) {
			err = pq.Corruptf("%w", err) // parquet, but not what we write
		}
		return c, err
	}
	c.Path = path
	if err := belongs(c, job); err != nil {
		return c, err
	}
	if err := pq.Recovered(func() error {
		foot, err := pq.ReadFooter(f, f.Size)
		if err != nil {
			return err
		}
		v := &verifier{ctx: ctx, job: job, c: c, f: f, foot: foot}
		if err := v.scores(); err != nil {
			return err
		}
		return v.keptOf(input)
	}); err != nil {
		return c, err
	}
	return c, checkFileDigest(f, f.Size)
}

// belongs holds what a file says made it to the job.
func belongs(c Committed, job score.Job) error {
	for _, x := range []struct{ what, have, want string }{
		{"run", c.Run, job.Run}, {"job", c.Job, job.ID}, {"options' digest", c.ConfigDigest, job.ConfigDigest},
		{"model's digest", c.ModelDigest, job.Model.Digest}, {"tokenizer's digest", c.TokenizerDigest,
			job.Model.TokenizerDigest},
		{"input", c.Input.Rel, job.Input.Rel}, {"input's version", c.Input.Version, job.Input.Version},
		{"rows", fmt.Sprintf("%d-%d", c.First, c.Last), fmt.Sprintf("%d-%d", job.First, job.Last)},
	} {
		if x.have != x.want {
			return fmt.Errorf("%w: its %s is %.80q, this job's is %.80q", ErrConflict, x.what, x.have, x.want)
		}
	}
	return nil
}

// verifier reads one score file.
type verifier struct {
	ctx  context.Context // of the one call that made it
	job  score.Job
	c    Committed
	f    io.ReaderAt
	foot *pq.Footer
}

func near(a, b float64) bool { return a == b || math.Abs(a-b) <= 1e-12*math.Abs(b) }

// ownRow is one row of a score file's own columns.
type ownRow struct {
	score.Score
	perplexity, bitsPerByte       float64
	hasPerplexity, hasBitsPerByte bool
	greedy, hasGreedy             bool
}

// ownColumn sets a field of an ownRow from a value.
type ownColumn struct {
	*pq.Column
	set func([]byte)
}

// open starts to read a column whose type is known.
func (v *verifier) open(name string, kind parquet.Kind, repeated bool, set func([]byte)) (ownColumn, error) {
	e, err := v.foot.Top(name)
	if err != nil {
		return ownColumn{}, err
	}
	l := e.Leaf
	if repeated {
		if el := e.ListElement(); el != nil {
			l = el.Leaf
		}
	}
	if l == nil || l.Kind != kind || (l.MaxRep > 0) != repeated {
		return ownColumn{}, v.foot.ColumnErr("column %q is of type %s", name, e.TypeName(0))
	}
	return ownColumn{pq.NewColumn(v.ctx, v.f, v.foot, l, 0), set}, nil
}

// ownColumns opens the file's own columns, which set r's fields.
func (v *verifier) ownColumns(r *ownRow) ([]ownColumn, error) {
	var columns []ownColumn
	var errs error
	add := func(name string, kind parquet.Kind, repeated bool, set func([]byte)) {
		c, err := v.open(name, kind, repeated, set)
		columns, errs = append(columns, c), errors.Join(errs, err)
	}
	float := func(b []byte) float64 { return math.Float64frombits(uint64(i64(b))) }
	for _, sc := range scoreColumns {
		add(sc.name, sc.kind, false, func(b []byte) { sc.set(&r.Score, b) })
	}
	add("perplexity", parquet.Double, false, func(b []byte) { r.perplexity, r.hasPerplexity = float(b), true })
	add("bits_per_byte", parquet.Double, false, func(b []byte) { r.bitsPerByte, r.hasBitsPerByte = float(b), true })
	if v.job.Options.Conditional() {
		add(contextColumn.name, contextColumn.kind, false, func(b []byte) { contextColumn.set(&r.Score, b) })
		add("greedy", parquet.Boolean, false, func(b []byte) { r.greedy, r.hasGreedy = b[0] != 0, true })
	}
	if v.job.Options.PerToken {
		add("token_ids", parquet.Int32, true, func(b []byte) { r.TokenIDs = append(r.TokenIDs, int32(le32(b))) })
		add("token_nll", parquet.Float, true, func(b []byte) {
			r.TokenNLL = append(r.TokenNLL, math.Float32frombits(le32(b)))
		})
	}
	return columns, errs
}

// scores reads the file's own columns and checks rows, totals and digest.
func (v *verifier) scores() error {
	var r ownRow
	columns, err := v.ownColumns(&r)
	if err != nil {
		return pq.Corruptf("%w", err)
	}
	var totals Totals
	digest := newDigester(v.job.Options)
	for row := v.c.First; row <= v.c.Last; row++ {
		r = ownRow{Score: score.Score{Bytes: -1, TokenIDs: r.TokenIDs[:0], TokenNLL: r.TokenNLL[:0]}}
		if err := readOwnRow(columns, row); err != nil {
			return err
		}
		if err := v.checkRow(&r, row); err != nil {
			return err
		}
		totals.addScore(&r.Score)
		digest.add(&r.Score)
	}
	for _, c := range columns {
		if err := c.Row(func(pq.Entry) error { return nil }); err != io.EOF {
			return pq.Corruptf("column %s continues after row %d", c.Leaf.Path, v.c.Last)
		}
	}
	if totals != v.c.Totals {
		return pq.Corruptf("its rows add up to %+v, its metadata says %+v", totals, v.c.Totals)
	}
	if d := digest.sum(); d != v.c.Digest {
		return pq.Corruptf("its scores have digest %s, its metadata says %s", d, v.c.Digest)
	}
	return nil
}

// readOwnRow reads the next row of each column.
func readOwnRow(columns []ownColumn, row int64) error {
	for _, c := range columns {
		if err := c.Row(func(e pq.Entry) error {
			if e.Def == c.Leaf.MaxDef {
				c.set(e.Val)
			}
			return nil
		}); err == io.EOF {
			return pq.Corruptf("the file ends before row %d", row)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// checkRow checks a row's numbers against each other.
func (v *verifier) checkRow(r *ownRow, row int64) error {
	s := &r.Score
	if s.Row != row {
		return pq.Corruptf("found row %d, expected row %d", s.Row, row)
	}
	if err := checkScore(s, v.job.Options); err != nil {
		return pq.Corruptf("row %d: %w", row, err)
	}
	numbers := s.Tokens != 0 || s.SumNLL != 0 || s.Top1 != 0 || s.ContextTokens != 0 || s.Truncated ||
		len(s.TokenNLL) > 0
	if s.Error != "" && numbers {
		return pq.Corruptf("row %d has a score and an error", row)
	}
	if want, ok := s.Perplexity(); ok != r.hasPerplexity || ok && !near(r.perplexity, want) {
		return pq.Corruptf("row %d: perplexity is not exp(sum_nll/n_tokens)", row)
	}
	if want, ok := s.BitsPerByte(); ok != r.hasBitsPerByte || ok && !near(r.bitsPerByte, want) {
		return pq.Corruptf("row %d: bits_per_byte is not sum_nll/ln 2/n_bytes", row)
	}
	if want, ok := s.Greedy(); v.job.Options.Conditional() && (ok != r.hasGreedy || ok && r.greedy != want) {
		return pq.Corruptf("row %d: greedy is not n_top1 = n_tokens", row)
	}
	return nil
}

// keptOf reads the kept columns, beside the input's if it is to be looked at.
func (v *verifier) keptOf(input bool) error {
	own := map[string]bool{}
	for _, name := range v.job.Options.Columns() {
		own[name] = true
	}
	ours := map[string]*pq.Leaf{}
	for _, e := range v.foot.Columns() {
		if !own[e.Name()] {
			for _, l := range e.AppendLeaves(nil) {
				ours[l.Path] = l
			}
		}
	}
	if !input {
		return nil // the file's digest covers them
	}
	in, err := openInput(v.ctx, v.job.Input)
	if err != nil {
		return err
	}
	defer in.Close()
	if jsonl.Is(v.job.Input.Rel) {
		return v.keptOfLines(ours)
	}
	foot, err := pq.ReadFooter(in, v.job.Input.Size)
	if err != nil {
		return fmt.Errorf("%w: input %s: %w", ErrInputChanged, v.job.Input.Path, err)
	}
	kept, err := keptElements(foot, v.job.Options.Keep, v.job.Options.Columns())
	if err != nil {
		return err
	}
	for _, e := range kept {
		for _, theirs := range e.AppendLeaves(nil) {
			l := ours[theirs.Path]
			if l == nil || l.Kind != theirs.Kind || l.MaxDef != theirs.MaxDef || l.MaxRep != theirs.MaxRep {
				return pq.Corruptf("kept column %s is missing or of another type than the input's", theirs.Path)
			}
			delete(ours, theirs.Path)
			a := pq.NewColumn(v.ctx, v.f, v.foot, l, 0)
			b := pq.NewColumn(v.ctx, in, foot, theirs, v.job.First)
			if err := sameColumn(a, b, v.c.First, v.c.Last); err != nil {
				return err
			}
		}
	}
	for path := range ours {
		return pq.Corruptf("unexpected column %s", path)
	}
	return nil
}

// keptOfLines reads the job's lines beside ours, the kept columns by name.
func (v *verifier) keptOfLines(ours map[string]*pq.Leaf) error {
	r, err := new(Opener).openRange(v.ctx, v.job)
	if err != nil {
		return fmt.Errorf("%w: input %s: %w", ErrInputChanged, v.job.Input.Path, err)
	}
	defer r.Close()
	var cols []*pq.Column
	for _, theirs := range r.columns.leaves {
		l := ours[theirs.Path]
		if l == nil || l.Kind != theirs.Kind || l.MaxDef != theirs.MaxDef || l.MaxRep != 0 {
			return pq.Corruptf("kept column %s is missing or of another type than the input's", theirs.Path)
		}
		delete(ours, theirs.Path)
		cols = append(cols, pq.NewColumn(v.ctx, v.f, v.foot, l, 0))
	}
	for path := range ours {
		return pq.Corruptf("unexpected column %s", path)
	}
	for row := v.c.First; row <= v.c.Last; row++ {
		want, err := r.Next()
		if err != nil {
			return fmt.Errorf("%w: input row %d: %w", ErrInputChanged, row, err)
		}
		for i, c := range cols {
			same := false
			if err := c.Row(func(e pq.Entry) error {
				have := c.Leaf.Value(e, i)
				same = have.DefinitionLevel() == want.Kept.values[i].DefinitionLevel() &&
					parquet.Equal(have, want.Kept.values[i])
				return nil
			}); err != nil {
				return err
			}
			if !same {
				return pq.Corruptf("row %d: kept column %s is not what the input has", row, c.Leaf.Path)
			}
		}
	}
	return nil
}

// sameColumn compares rows first..last of an input's column b with all of a.
func sameColumn(a, b *pq.Column, first, last int64) error {
	var x, y []byte // a row's entries: levels and values
	collect := func(buf *[]byte) func(pq.Entry) error {
		*buf = (*buf)[:0]
		return func(e pq.Entry) error {
			*buf = append(*buf, e.Rep, e.Def, byte(len(e.Val)), byte(len(e.Val)>>8), byte(len(e.Val)>>16),
				byte(len(e.Val)>>24))
			*buf = append(*buf, e.Val...)
			return nil
		}
	}
	for row := first; row <= last; row++ {
		if err := a.Row(collect(&x)); err == io.EOF {
			return pq.Corruptf("column %s ends before row %d", a.Leaf.Path, row)
		} else if err != nil {
			return err
		}
		if err := b.Row(collect(&y)); err != nil {
			return fmt.Errorf("%w: input row %d: %w", ErrInputChanged, row, err)
		}
		if string(x) != string(y) {
			return pq.Corruptf("row %d: kept column %s is not what the input has", row, a.Leaf.Path)
		}
	}
	return nil
}
