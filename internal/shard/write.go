package shard

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"

	"github.com/parquet-go/parquet-go"

	"surprisal/internal/failpoint"
	"surprisal/internal/score"
	"surprisal/internal/shard/pq"
	"surprisal/internal/shard/pq/arrow"
)

// A row group ends at whichever comes first, so that the writer's memory is
// bounded however long the documents kept are.
const (
	groupRows  = 1 << 17
	groupBytes = 64 << 20
)

// Metadata says what made a score file, beside what the job says.
type Metadata struct {
	Precision string // fp32, bf16
	Engine    string // cpu, cuda
	Set       string // the CPU engine's instruction set; empty on a GPU and in files of older versions
	Device    string // for people
	Program   string // version
}

// Place is where score files go: a folder, or a prefix in a bucket.
type Place interface {
	// Path is the place of a name below it.
	Path(name string) string
	// Temporary makes a file to write, which no reader of OUT sees.
	Temporary(job score.Job) (f *os.File, temp string, err error)
	// Publish closes the synced temporary and gives it its name, which it never
	// takes from another file that can be read.
	Publish(ctx context.Context, f *os.File, temp, name string, c Committed) (Committed, error)
	Remove(temp string) error
	Close() error
}

// Writer writes one job's score file. Its bytes are a function of the job, the
// metadata and the rows alone.
type Writer struct {
	job  score.Job
	meta Metadata
	out  Place
	temp string // name under out
	file *os.File
	//lint:ignore SA1019 the generic one wants a Go type; columns are known at run time only
	pq     *parquet.Writer
	keptN  int // leaves of the kept columns
	next   int64
	row    parquet.Row
	ids    int // index of token_ids' leaf, -1 without
	group  int64
	bytes  int64
	totals Totals
	digest *digester
	whole  hash.Hash // of the bytes as they are written
	err    error
}

// NewWriter starts the job's score file as a temporary of a place, which the writer
// closes. The caller must Commit or Abort it; Abort after Commit does nothing.
func NewWriter(place Place, job score.Job, kept *Columns, meta Metadata) (*Writer, error) {
	if kept == nil {
		kept = &Columns{}
	}
	root, err := outputSchema(kept, job.Options)
	if err != nil {
		return nil, errors.Join(err, place.Close())
	}
	w := &Writer{
		job: job, meta: meta, out: place, keptN: len(kept.leaves), next: job.First, ids: -1,
		digest: newDigester(job.Options), whole: sha256.New(),
	}
	if job.Options.PerToken {
		w.ids = w.keptN + len(job.Options.Columns()) - 2
	}
	if w.file, w.temp, err = place.Temporary(job); err != nil {
		return nil, errors.Join(err, place.Close())
	}
	err = pq.Recovered(func() error {
		cfg, err := parquet.NewWriterConfig(
			parquet.NewSchema("schema", root),
			parquet.CreatedBy("surprisal", meta.Program, ""),
			parquet.Compression(&parquet.Zstd),
			parquet.DataPageVersion(1), // every reader has it
			parquet.PageBufferSize(1<<20),
			parquet.SkipPageBounds(),
		)
		if err != nil {
			return err
		}
		cfg.SkipPageBounds = root.Unordered()
		w.pq = parquet.NewWriter(io.MultiWriter(w.file, w.whole), cfg) //nolint:staticcheck // see above
		return nil
	})
	if err != nil {
		w.Abort()
		return nil, err
	}
	if a := arrowSchema(kept, job.Options); a != "" {
		w.pq.SetKeyValueMetadata(arrow.SchemaKey, a)
	}
	return w, nil
}

// Write adds a row; s.Row must be the job's next. A score with an Error is
// written without numbers: n_tokens, sum_nll, n_top1 and n_context_tokens are 0,
// perplexity, bits_per_byte and greedy null, n_bytes as given.
func (w *Writer) Write(s score.Score, kept Kept) error {
	if w.err != nil {
		return w.err
	}
	if w.pq == nil {
		return fmt.Errorf("write output %s: %w", w.job.Output, os.ErrClosed)
	}
	err := failpoint.Hit(failpoint.MidWrite)
	if err == nil {
		err = w.write(&s, kept)
	}
	if err != nil {
		w.err = fmt.Errorf("write output %s: row %d: %w", w.job.Output, s.Row, err)
		return w.err
	}
	return nil
}

func (w *Writer) write(s *score.Score, kept Kept) error {
	if s.Row != w.next || s.Row > w.job.Last {
		return fmt.Errorf("%w: expected row %d, of %d to %d", ErrRows, w.next, w.job.First, w.job.Last)
	}
	if s.Error != "" {
		*s = score.Score{Row: s.Row, Bytes: s.Bytes, Error: s.Error}
	}
	if s.Bytes < 0 {
		s.Bytes = -1
	}
	if err := checkScore(s, w.job.Options); err != nil {
		return err
	}
	if !w.job.Options.PerToken {
		s.TokenIDs, s.TokenNLL = nil, nil
	}
	w.row = append(w.row[:0], kept.values...)
	w.appendScore(s)
	if err := pq.Recovered(func() error {
		_, err := w.pq.WriteRows([]parquet.Row{w.row})
		return err
	}); err != nil {
		return err
	}
	w.next++
	w.totals.addScore(s)
	w.digest.add(s)
	return w.flushIfFull(kept, s)
}

func checkScore(s *score.Score, o score.Options) error {
	switch {
	case s.ContextTokens < 0 || o.Conditional() != (s.ContextTokens > 0) && s.Error == "":
		return fmt.Errorf("%w: %d context tokens", ErrRows, s.ContextTokens)
	case s.Tokens < 0 || s.Top1 < 0 || s.Top1 > s.Tokens:
		return fmt.Errorf("%w: %d tokens, %d of them first choice", ErrRows, s.Tokens, s.Top1)
	case math.IsNaN(s.SumNLL) || math.IsInf(s.SumNLL, 0):
		return fmt.Errorf("%w: sum_nll is %v", ErrRows, s.SumNLL)
	case o.PerToken && s.Error == "" && (int64(len(s.TokenNLL)) != s.Tokens || len(s.TokenIDs) < len(s.TokenNLL)):
		return fmt.Errorf("%w: %d token_ids and %d token_nll for %d tokens", ErrRows, len(s.TokenIDs), len(s.TokenNLL),
			s.Tokens)
	}
	return nil
}

// appendScore adds our own columns' values to w.row, in the order of ownNodes.
func (w *Writer) appendScore(s *score.Score) {
	col := w.keptN
	required := func(v parquet.Value) {
		w.row = append(w.row, v.Level(0, 0, col))
		col++
	}
	optional := func(v parquet.Value, ok bool) {
		if ok {
			w.row = append(w.row, v.Level(0, 1, col))
		} else {
			w.row = append(w.row, parquet.NullValue().Level(0, 0, col))
		}
		col++
	}
	required(parquet.Int64Value(s.Row))
	required(parquet.Int64Value(s.Tokens))
	optional(parquet.Int64Value(s.Bytes), s.Bytes >= 0)
	required(parquet.DoubleValue(s.SumNLL))
	ppl, ok := s.Perplexity()
	optional(parquet.DoubleValue(ppl), ok)
	bpb, ok := s.BitsPerByte()
	optional(parquet.DoubleValue(bpb), ok)
	required(parquet.Int64Value(s.Top1))
	required(parquet.BooleanValue(s.Truncated))
	optional(parquet.ByteArrayValue([]byte(s.Error)), s.Error != "")
	if w.job.Options.Conditional() {
		required(parquet.Int64Value(s.ContextTokens))
		greedy, ok := s.Greedy()
		optional(parquet.BooleanValue(greedy), ok)
	}
	if w.ids < 0 {
		return
	}
	w.row = appendList(w.row, w.ids, s.TokenIDs, s.Error != "", parquet.Int32Value)
	w.row = appendList(w.row, w.ids+1, s.TokenNLL, s.Error != "", parquet.FloatValue)
}

// appendList adds a list's values: level 0 null, 1 empty, 3 an element.
func appendList[T any](row parquet.Row, col int, list []T, null bool, value func(T) parquet.Value) parquet.Row {
	switch {
	case null:
		return append(row, parquet.NullValue().Level(0, 0, col))
	case len(list) == 0:
		return append(row, parquet.NullValue().Level(0, 1, col))
	}
	for i, x := range list {
		row = append(row, value(x).Level(min(i, 1), 3, col))
	}
	return row
}

// flushIfFull ends the row group when it holds enough.
func (w *Writer) flushIfFull(kept Kept, s *score.Score) error {
	w.group++
	w.bytes += int64(len(w.row))*8 + int64(len(s.Error)) + int64(kept.bytes)
	if w.group < groupRows && w.bytes < groupBytes {
		return nil
	}
	w.group, w.bytes = 0, 0
	return pq.Recovered(w.pq.Flush)
}

// Commit syncs the file and publishes it under the job's name. When the name is
// taken by a whole score file of the same job and the same scores, that one
// stays, ours is dropped and Existed is set; when it is taken by anything else
// that can be read, the error wraps ErrConflict and nothing is overwritten. A
// file that can't be read as parquet (torn by a bad disk) is replaced. No
// temporary is left behind, whatever happens short of a crash.
func (w *Writer) Commit(ctx context.Context) (Committed, error) {
	c, err := w.commit(ctx)
	if abortErr := w.Abort(); err == nil && abortErr != nil {
		err = abortErr
	}
	if err != nil {
		return Committed{}, fmt.Errorf("commit output %s: %w", w.job.Output, err)
	}
	return c, nil
}

func (w *Writer) commit(ctx context.Context) (Committed, error) {
	if w.err != nil {
		return Committed{}, w.err
	}
	if w.pq == nil {
		return Committed{}, os.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return Committed{}, err
	}
	if w.next != w.job.Last+1 {
		return Committed{}, fmt.Errorf("%w: %d rows of %d", ErrRows, w.next-w.job.First, w.job.Rows())
	}
	c, err := w.seal()
	if err != nil {
		return Committed{}, err
	}
	// The last chance to turn back; from here on it takes an instant.
	if err := ctx.Err(); err != nil {
		return Committed{}, err
	}
	f := w.file
	w.file = nil
	return w.out.Publish(ctx, f, w.temp, w.job.Output, c)
}

// seal writes the footer, syncs, and reads the footer back.
func (w *Writer) seal() (Committed, error) {
	c := Committed{
		Path: w.out.Path(w.job.Output), Job: w.job.ID, Run: w.job.Run, ConfigDigest: w.job.ConfigDigest,
		Input: w.job.Input, First: w.job.First, Last: w.job.Last, Digest: w.digest.sum(), Totals: w.totals,
		Metadata:    w.meta,
		ModelDigest: w.job.Model.Digest, TokenizerDigest: w.job.Model.TokenizerDigest,
	}
	err := pq.Recovered(func() error {
		for _, kv := range c.keyValues() {
			w.pq.SetKeyValueMetadata(kv[0], kv[1])
		}
		w.pq.SetKeyValueMetadata(fileDigestKey, noDigest)
		return w.pq.Close()
	})
	w.pq = nil
	if err != nil {
		return c, err
	}
	if err := putFileDigest(w.file, w.whole); err != nil {
		return c, err
	}
	if err := w.file.Sync(); err != nil {
		return c, err
	}
	st, err := w.file.Stat()
	if err != nil {
		return c, err
	}
	back, err := InspectFile(w.file, st.Size())
	if err != nil {
		return c, fmt.Errorf("the file written can't be read back: %w", err)
	}
	if back.Path = c.Path; back != c {
		return c, fmt.Errorf("the file written reads back differently: %+v", back)
	}
	return c, nil
}

// Abort removes the temporary.
func (w *Writer) Abort() error {
	if w.out == nil {
		return nil
	}
	var errs []error
	if w.file != nil {
		errs = append(errs, w.file.Close())
		w.file = nil
	}
	errs = append(errs, w.out.Remove(w.temp), w.out.Close())
	w.out, w.pq = nil, nil
	return errors.Join(errs...)
}
