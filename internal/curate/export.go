package curate

import (
	"context"
	"errors"
	"fmt"

	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/pq"
	"surprisal/internal/usage"
)

// ExportOptions configure Export.
type ExportOptions struct {
	As string // merged, sidecar or dolma
	To string // DEST
}

// Exported is the result of Export.
type Exported struct {
	Run         string   `json:"run"`
	As          string   `json:"as"`
	To          string   `json:"to"`
	Files       int      `json:"files"`
	Rows        int64    `json:"rows"`
	MissingRows int64    `json:"missing_rows,omitempty"` // --partial left them out
	FailedFiles []string `json:"failed_files,omitempty"` // and these
}

// Export writes every row that has a score file line.
func (c *Corpus) Export(ctx context.Context, o ExportOptions) (*Exported, error) {
	req := c.request("export")
	req.As = o.As
	var one func(context.Context, *destination, *File) error
	switch o.As {
	case "merged":
		one = c.merge
	case "sidecar":
		one = c.sidecar
	case "dolma":
		one = c.dolma
		if c.MissingRows > 0 {
			return nil, usage.Errorf("%d rows have no score yet, and dolma's attributes must line up "+
				"with its documents: score them first", c.MissingRows)
		}
		if c.Manifest.Options.TextColumn == "" {
			return nil, usage.Errorf("the run scored token IDs, and dolma's attributes are spans of text: " +
				"use --as sidecar or merged")
		}
	default:
		return nil, usage.Errorf("--as %s is not one of sidecar, merged, dolma", o.As)
	}
	dest, err := c.openDest(ctx, o.To, req)
	if err != nil {
		return nil, err
	}
	defer dest.Close()
	e := &Exported{Run: c.Manifest.Run, As: o.As, To: o.To, Files: len(c.Files), MissingRows: c.MissingRows,
		FailedFiles: c.FailedFiles}
	for i := range c.Files {
		for _, r := range c.Files[i].Scores {
			e.Rows += r.Last - r.First + 1
		}
	}
	if err := c.EachFile(ctx, func(ctx context.Context, f *File) error { return one(ctx, dest, f) }); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return e, dest.finish(ctx, e)
}

// sidecar writes the score files of an input as one.
func (c *Corpus) sidecar(ctx context.Context, dest *destination, f *File) error {
	name := f.Input.Rel
	if jsonl.Is(f.Input.Rel) {
		name += ".parquet"
	}
	if len(f.Scores) == 0 || dest.hasParquet(ctx, name) {
		return nil
	}
	o, err := c.open(ctx, f, !jsonl.Is(f.Input.Rel))
	if err != nil {
		return err
	}
	borders := o.input
	if borders == nil {
		borders = pq.Borders(f.Input.Path, o.scores)
	}
	err = dest.CopyRows(ctx, name, pq.Copy{
		In: borders, Rows: f.scored(), Beside: o.scores, BesideOnly: true, Metadata: dest.metadata(), Slots: dest.slots,
	})
	return errors.Join(err, o.close())
}

// scored gives the rows of a file that have scores; nil means all.
func (f *File) scored() *pq.Bitmap {
	n, rows := int64(0), &pq.Bitmap{}
	for _, r := range f.Scores {
		n += r.Last - r.First + 1
		for i := r.First; i <= r.Last; i++ {
			rows.Set(i)
		}
	}
	if n == f.Rows {
		return nil
	}
	return rows
}

// merge copies the input with the score columns behind its own.
func (c *Corpus) merge(ctx context.Context, dest *destination, f *File) error {
	return c.copyRows(ctx, dest, f, f.Input.Rel, f.scored(), true, "", nil)
}
