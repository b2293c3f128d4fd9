package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"surprisal/internal/metrics"
	"surprisal/internal/model/tokenizer"
	"surprisal/internal/score"
	"surprisal/internal/shard"
)

// A chunk is what one goroutine tokenizes at a time: few enough bytes that all
// cores have some, enough rows that handing them round costs nothing.
const (
	chunkRows  = 256
	chunkBytes = 256 << 10
)

// reading turns a job's rows into documents with token ids.
type reading struct {
	tokenizer *tokenizer.Tokenizer // nil when only ids are scored
	vocab     int                  // ids are within 0 .. vocab-1
	threads   int                  // goroutines that tokenize
	moved     func()               // told whenever some rows were read
	meter     *metrics.Worker
	idle      *idle
}

// read sends the task's documents to out in the order of their rows. Rows that
// can't be scored are sent with their reason.
func (r *reading) read(ctx context.Context, t *task, rows *shard.Reader, out chan<- item) error {
	g, ctx := errgroup.WithContext(ctx)
	chunks := make(chan chan []*document, r.threads) // in order of rows; bounds what is read ahead
	slots := make(chan struct{}, r.threads)
	g.Go(func() error {
		defer close(chunks)
		for {
			start := time.Now()
			chunk, err := nextChunk(rows)
			r.moved()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			r.meter.Took(metrics.PhaseRead, time.Since(start))
			t.trace.Phase(string(metrics.PhaseRead), start, "rows", len(chunk))
			done := make(chan []*document, 1) // so that a tokenizing goroutine never waits
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case chunks <- done:
			case <-ctx.Done():
				return ctx.Err()
			}
			g.Go(func() error {
				defer func() { <-slots }()
				start := time.Now()
				docs := make([]*document, len(chunk))
				var known contextIDs
				for i := range chunk {
					docs[i] = r.document(t, &chunk[i], &known)
				}
				r.meter.Took(metrics.PhaseTokenize, time.Since(start))
				t.trace.Phase(string(metrics.PhaseTokenize), start, "rows", len(chunk))
				done <- docs
				return nil
			})
		}
	})
	g.Go(func() error {
		send := func(it item) error {
			select {
			case out <- it:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		var group []*document // of a conditional run
		ids := 0
		for done := range chunks {
			r.idle.because(metrics.CauseTokenizing)
			var docs []*document
			select {
			case docs = <-done:
			case <-ctx.Done():
				return ctx.Err()
			}
			r.idle.because(metrics.CauseReading)
			for _, d := range docs {
				if !t.job.Options.Conditional() {
					if err := send(item{doc: d}); err != nil {
						return err
					}
					continue
				}
				group = append(group, d)
				if ids += len(d.ids); ids >= groupIDs {
					if err := send(item{docs: group}); err != nil {
						return err
					}
					group, ids = nil, 0
				}
			}
		}
		if len(group) > 0 {
			return send(item{docs: group})
		}
		return nil
	})
	return g.Wait()
}

func nextChunk(rows *shard.Reader) ([]shard.Row, error) {
	var chunk []shard.Row
	for size := 0; len(chunk) < chunkRows && size < chunkBytes; {
		row, err := rows.Next()
		if errors.Is(err, io.EOF) && len(chunk) > 0 {
			return chunk, nil
		}
		if err != nil {
			return nil, err
		}
		chunk = append(chunk, row)
		size += len(row.Context) + len(row.Text) + 4*len(row.IDs) + row.Kept.Size()
	}
	return chunk, nil
}

// document makes a row's document: its ids, or why it has none.
func (r *reading) document(t *task, row *shard.Row, known *contextIDs) *document {
	d := &document{task: t, kept: row.Kept, score: score.Score{Row: row.Index, Bytes: -1}}
	ids := t.job.Options.IDsColumn != ""
	switch {
	case row.Problem != "":
		d.score.Error = row.Problem
	case t.job.Options.Conditional():
		r.conditional(d, row, &t.job.Options, known)
	case row.Null && ids:
		d.score.Error = "null ids"
	case row.Null:
		d.score.Error = "null text"
	case ids:
		d.ids = row.IDs
	default:
		d.ids, d.score.Error = r.encode(row.Text)
		if d.score.Error == "" {
			d.score.Bytes = int64(len(row.Text))
		}
	}
	for i, id := range d.ids {
		if id < 0 || int(id) >= r.vocab {
			d.ids, d.score.ContextTokens = nil, 0
			d.score.Error = fmt.Sprintf("ids out of range: %d at position %d, the vocabulary has %d", id, i, r.vocab)
			break
		}
	}
	return d
}

// encode gives the beginning token and the text's ids, or why there are none.
func (r *reading) encode(text string) (ids []int32, problem string) {
	bos, _ := r.tokenizer.BOS() // checked when the job was taken
	enc, err := r.tokenizer.Encode([]byte(text))
	switch {
	case errors.Is(err, tokenizer.ErrNotUTF8):
		return nil, "not UTF-8"
	case err != nil:
		return nil, "tokenize: " + err.Error()
	}
	ids = make([]int32, 0, len(enc)+1)
	return append(append(ids, bos), enc...), ""
}
