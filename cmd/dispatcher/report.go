package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/curate"
	"surprisal/internal/place"
	"surprisal/internal/report"
	"surprisal/internal/shard/outdir"
	"surprisal/internal/usage"
)

// reportOptions are the flags of report.
type reportOptions struct {
	report.Options
	to, plots, workerBin      string
	noTokens, partial, asJSON bool
}

func newReport(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "report OUT",
		Short: "Write a run's report: one HTML file that works offline",
		Long: `Write a run's report: one HTML file that works offline. It shows distributions of
perplexity, bits per byte and length, also by columns; how much each threshold keeps;
the best, median and worst documents with each token coloured by its surprisal; rows
without a score; and which model, engine and workers scored the run.

Documents of an OUT without --per-token columns are scored again, only those shown,
with the run's model and the worker program in this program's folder; where that
fails their text has no colours and the report says why.`,
		Example: `  dispatcher report examples/demo/out
  dispatcher report scores --by dump,language --to report.html --plots plots`,
		Args: cobra.ExactArgs(1),
	}
	var o reportOptions
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSliceVar(&o.By, "by", nil,
		"columns to group distributions by (default dump, language and source, if they exist)")
	f.StringVar(&o.to, "to", "", "the HTML file (default OUT/report.html)")
	f.StringVar(&o.plots, "plots", "", "folder for the plots, each as an .svg and a .png file")
	f.IntVar(&o.Documents, "documents", 4, "number of documents shown of the best, of the median and of the worst")
	f.BoolVar(&o.noTokens, "no-tokens", false, "do not score the documents shown again to colour them")
	f.StringVar(&o.workerBin, "worker-bin", "", workerBinUsage)
	f.BoolVar(&o.partial, "partial", false, "continue although some rows have no score yet")
	f.BoolVar(&o.asJSON, "json", false, "print the report's numbers as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.report(cmd.OutOrStdout(), o, args[0]) }
	return cmd
}

func (a *app) report(w io.Writer, o reportOptions, out string) error {
	if o.Documents < 1 || o.Documents > 100 {
		return usage.Errorf("--documents %d: must be between 1 and 100", o.Documents)
	}
	if err := cli.Resolve("--plots", &o.plots); err != nil {
		return err
	}
	again, err := a.rescorer(o.workerBin)
	if err != nil {
		return err
	}
	c, err := a.corpus(out, &o.to, o.partial)
	if err != nil {
		return err
	}
	if o.to == "" {
		o.to = place.Join(c.Dir, "report.html")
	}
	o.Program = version
	if !o.noTokens {
		o.Tokens = func(ctx context.Context, docs []*curate.Document) (string, error) {
			if err := again.Tokens(ctx, c, docs); err != nil {
				return cli.OneLine(err.Error()), ctx.Err()
			}
			return "", nil
		}
	}
	r, err := report.Make(a.Drain, c, o.Options)
	if err != nil {
		return err
	}
	dir, name := place.Split(o.to)
	if err := writeInto(a.Abort, dir,
		func(d *outdir.Dest) error { return d.WriteFile(a.Abort, name, r.HTML) }); err != nil {
		return err
	}
	if o.plots != "" {
		err := writeInto(a.Abort, o.plots, func(d *outdir.Dest) error {
			return r.Plots(func(name string, content func(io.Writer) error) error {
				return d.WriteFile(a.Abort, name,
					content)
			})
		})
		if err != nil {
			return err
		}
	}
	if o.asJSON {
		return cli.PrintJSON(w, r)
	}
	_, err = fmt.Fprintf(w, "report: %s\n", o.to)
	return err
}

// writeInto opens a folder for files that appear whole or not at all.
func writeInto(ctx context.Context, dir string, do func(*outdir.Dest) error) error {
	d, err := outdir.OpenDest(ctx, dir)
	if err != nil {
		return &usage.Error{Err: err}
	}
	defer d.Close()
	return do(d)
}
