package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"surprisal/internal/curate"
)

func newExport(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export OUT --as sidecar|merged|dolma --to DEST",
		Short: "Write the scores in another layout: beside, or into, the input's files",
		Long: `Write the scores in another layout.

  merged   the input's files with the score columns behind their own
  sidecar  one parquet file of scores for each input file, of the same name
  dolma    attributes for the Dolma toolkit: jsonl.gz, one line for each document,
           spans [start, end, score] over the whole text

DEST must be new or empty. The same command again goes on where it stopped.`,
		Example: `  dispatcher export examples/demo/out --as merged --to merged
  dispatcher export scores --as dolma --to attributes/surprisal`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.String("as", "merged", "sidecar, merged or dolma")
	f.String("to", "", "folder for the files, also in a bucket: s3://BUCKET/KEY, gs://…, az://…")
	f.Bool("partial", false, "go on although rows have no score yet; those are left out")
	f.Bool("json", false, "print what was written as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var o curate.ExportOptions
		o.As, _ = f.GetString("as") // made above, as are the others
		o.To, _ = f.GetString("to")
		partial, _ := f.GetBool("partial")
		asJSON, _ := f.GetBool("json")
		c, err := curate.Open(l.drain, args[0], partial)
		if err != nil {
			return err
		}
		e, err := c.Export(l.drain, o)
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if asJSON {
			return printJSON(w, e)
		}
		printLeftOut(w, e.MissingRows, e.FailedFiles)
		_, err = fmt.Fprintf(w, "%s rows in %d files in %s\n", count(e.Rows), e.Files, e.To)
		return err
	}
	return cmd
}
