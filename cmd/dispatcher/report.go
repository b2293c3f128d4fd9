package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"surprisal/internal/curate"
	"surprisal/internal/dispatch"
	"surprisal/internal/place"
	"surprisal/internal/report"
	"surprisal/internal/shard"
)

func newReport(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "report OUT",
		Short: "Write a run's report: one HTML file that needs no network",
		Long: `Write a run's report: one HTML file that needs no network. It shows distributions
of perplexity, bits per byte and length, also by columns; what each threshold
keeps; the best, median and worst documents with each token coloured by its
surprisal; rows without a score; and what scored what.

Documents of an OUT without --per-token columns are scored again, those few
alone, with the run's model and the worker program beside this one; where that
can't be done their text has no colours and the report says why.`,
		Example: `  dispatcher report examples/demo/out
  dispatcher report scores --by dump,language --to report.html --plots plots`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSlice("by", nil, "columns to show distributions by (default dump, language and source, if there)")
	f.String("to", "", "the HTML file (default OUT/report.html)")
	f.String("plots", "", "folder for the plots, each as an .svg and a .png file")
	f.Int("documents", 4, "documents shown of the best, of the median and of the worst")
	f.Bool("no-tokens", false, "don't score the documents shown again to colour them")
	f.String("worker-bin", "", "worker program (default the one beside this program)")
	f.Bool("partial", false, "go on although rows have no score yet")
	f.Bool("json", false, "print the report's numbers as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return runReport(cmd, l, args[0]) }
	return cmd
}

func runReport(cmd *cobra.Command, l life, out string) error {
	f := cmd.Flags()
	by, _ := f.GetStringSlice("by") // newReport made these
	to, _ := f.GetString("to")
	plots, _ := f.GetString("plots")
	documents, _ := f.GetInt("documents")
	noTokens, _ := f.GetBool("no-tokens")
	bin, _ := f.GetString("worker-bin")
	partial, _ := f.GetBool("partial")
	asJSON, _ := f.GetBool("json")
	if documents < 1 || documents > 100 {
		return flagError{fmt.Errorf("--documents %d is not within 1 and 100", documents)}
	}
	log, _, _, err := logger(cmd, os.Stderr, os.Stderr, true)
	if err != nil {
		return err
	}
	c, err := curate.Open(l.drain, out, partial)
	if err != nil {
		return err
	}
	if to == "" {
		to = place.Join(c.Dir, "report.html")
	}
	if to, err = place.Resolve(to); err != nil {
		return flagError{err}
	}
	o := report.Options{By: by, Documents: documents, Program: version}
	if !noTokens {
		var workerLog bytes.Buffer
		again := report.Rescorer{Local: dispatch.Local{WorkerBin: bin, WorkerLog: &workerLog, Log: log.Level(zerolog.ErrorLevel)}, Program: version}
		o.Tokens = func(ctx context.Context, docs []*curate.Document) (string, error) {
			if err := again.Tokens(ctx, c, docs); err != nil {
				return oneLine(err.Error()), ctx.Err()
			}
			return "", nil
		}
	}
	r, err := report.Make(l.drain, c, o)
	if err != nil {
		return err
	}
	dir, name := place.Split(to)
	if err := writeInto(cmd.Context(), dir, func(d *shard.Dest) error { return d.WriteFile(cmd.Context(), name, r.HTML) }); err != nil {
		return err
	}
	if plots != "" {
		if plots, err = place.Resolve(plots); err != nil {
			return flagError{err}
		}
		err := writeInto(cmd.Context(), plots, func(d *shard.Dest) error {
			return r.Plots(func(name string, content func(io.Writer) error) error {
				return d.WriteFile(cmd.Context(), name, content)
			})
		})
		if err != nil {
			return err
		}
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), r)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "report: %s\n", to)
	return err
}

// writeInto opens a folder for files that appear whole or not at all.
func writeInto(ctx context.Context, dir string, do func(*shard.Dest) error) error {
	d, err := shard.OpenDest(ctx, dir)
	if err != nil {
		return flagError{err}
	}
	defer d.Close()
	return do(d)
}
