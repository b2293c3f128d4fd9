package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/curate"
)

func newExport(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export OUT --as sidecar|merged|dolma --to DEST",
		Short: "Write the scores in another layout: beside the input's files, or merged into them",
		Long: `Write the scores in another layout.

  merged   the input's files with the score columns after their own
  sidecar  one parquet file of scores for each input file, of the same name
  dolma    attributes for the Dolma toolkit: jsonl.gz, one line for each document,
           spans [start, end, score] over the whole text

DEST must be new or empty. The same command again continues where it stopped.`,
		Example: `  dispatcher export examples/demo/out --as merged --to merged
  dispatcher export scores --as dolma --to attributes/surprisal`,
		Args: cobra.ExactArgs(1),
	}
	var (
		o               curate.ExportOptions
		partial, asJSON bool
	)
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.As, "as", "merged", "sidecar, merged or dolma")
	f.StringVar(&o.To, "to", "", toUsage)
	f.BoolVar(&partial, "partial", false, partialUsage)
	f.BoolVar(&asJSON, "json", false, "print the result as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.corpus(args[0], &o.To, partial)
		if err != nil {
			return err
		}
		e, err := c.Export(a.Drain, o)
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if asJSON {
			return cli.PrintJSON(w, e)
		}
		printLeftOut(w, e.MissingRows, e.FailedFiles)
		_, err = fmt.Fprintf(w, "%s rows in %d files in %s\n", cli.Count(e.Rows), e.Files, e.To)
		return err
	}
	return cmd
}
