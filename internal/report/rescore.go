package report

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"surprisal/internal/curate"
	"surprisal/internal/dispatch"
	"surprisal/internal/monitor"
	"surprisal/internal/score"
	"surprisal/internal/shard/outdir"
)

// Rescorer scores single documents again, token by token, with the run's model and
// options, in a separate run in a temporary folder.
type Rescorer struct {
	Local   dispatch.Local
	Program string
}

// Tokens fills in TokenIDs and TokenNLL of the documents that have none.
func (r *Rescorer) Tokens(ctx context.Context, c *curate.Corpus, docs []*curate.Document) error {
	byFile := map[*curate.File][]*curate.Document{}
	var files []*curate.File
	for _, d := range docs {
		if d.Score.Error != "" || d.Score.TokenNLL != nil {
			continue
		}
		if byFile[d.File] == nil {
			files = append(files, d.File)
		}
		byFile[d.File] = append(byFile[d.File], d)
	}
	if len(files) == 0 {
		return nil
	}
	return r.scratch(func(dir string) error {
		in := filepath.Join(dir, "in")
		rows, names := map[*curate.File][]int64{}, make([]string, len(files))
		for i, f := range files {
			for _, d := range byFile[f] {
				rows[f] = append(rows[f], d.Row)
			}
			slices.Sort(rows[f])
			rows[f] = slices.Compact(rows[f])
			var err error
			if names[i], err = c.CopyOf(ctx, f, rows[f], in, fmt.Sprintf("%06d", i)); err != nil {
				return err
			}
		}
		m := c.Manifest
		o := m.Options
		o.PerToken, o.Keep, o.Engine = true, []string{}, score.EngineAuto
		again, err := r.run(ctx, dir, dispatch.Request{ModelDir: m.Model.Dir, Tokenizer: m.Model.Tokenizer, Options: o})
		if err != nil {
			return err
		}
		if n := again.Manifest.Model; n.Digest != m.Model.Digest || n.TokenizerDigest != m.Model.TokenizerDigest {
			return fmt.Errorf("the model in %s is not the one that scored this run", m.Model.Dir)
		}
		for i, f := range files {
			g, err := again.Find(names[i])
			if err != nil {
				return err
			}
			for _, d := range byFile[f] {
				k, _ := slices.BinarySearch(rows[f], d.Row)
				twin, err := again.Document(ctx, g, int64(k))
				if err != nil {
					return err
				}
				d.Score.TokenIDs, d.Score.TokenNLL = twin.Score.TokenIDs, twin.Score.TokenNLL
			}
		}
		return nil
	})
}

// text scores a text with a model. The request's inputs and OUT are set here.
func (r *Rescorer) text(ctx context.Context, text string, req dispatch.Request) (doc *curate.Document,
	m *score.Manifest, err error) {
	err = r.scratch(func(dir string) error {
		d, err := outdir.OpenDest(ctx, filepath.Join(dir, "in"))
		if err != nil {
			return err
		}
		if err := errors.Join(d.WriteTexts(ctx, "text.parquet", []string{text}), d.Close()); err != nil {
			return err
		}
		req.Options.TextColumn, req.Options.IDsColumn = "text", ""
		req.Options.PerToken, req.Options.Keep = true, []string{}
		c, err := r.run(ctx, dir, req)
		if err != nil {
			return err
		}
		m = c.Manifest
		doc, err = c.Document(ctx, &c.Files[0], 0)
		return err
	})
	return doc, m, err
}

func (r *Rescorer) scratch(do func(dir string) error) error {
	dir, err := os.MkdirTemp("", "surprisal-tokens-")
	if err != nil {
		return fmt.Errorf("create a temporary folder: %w", err)
	}
	return errors.Join(do(dir), os.RemoveAll(dir))
}

// run scores dir/in into dir/out.
func (r *Rescorer) run(ctx context.Context, dir string, req dispatch.Request) (*curate.Corpus, error) {
	local := r.Local
	if local.Report == nil {
		local.Report = func(monitor.Progress) {}
	}
	if local.Draining == nil {
		local.Draining = func() {}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "in"))
	if err != nil {
		return nil, err
	}
	req.Inputs = nil
	for _, e := range entries { // as a folder, it would give parquet files alone
		req.Inputs = append(req.Inputs, filepath.Join(dir, "in", e.Name()))
	}
	req.Out, req.Program = filepath.Join(dir, "out"), r.Program
	sum, err := local.Run(ctx, ctx, req)
	if err != nil {
		return nil, err
	}
	if !sum.Complete {
		reason := "some rows were not scored"
		if len(sum.DeadJobs) > 0 {
			reason = sum.DeadJobs[0].Reason
		}
		return nil, errors.New(reason)
	}
	return curate.Open(ctx, req.Out, false)
}
