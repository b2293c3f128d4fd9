package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"surprisal/internal/curate"
)

func newBucket(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bucket OUT --to DEST [--by COLUMN]",
		Short: "Sort documents into head, middle and tail by perplexity, as CCNet does",
		Long: `Sort documents into head, middle and tail by perplexity, as CCNet does: below the
30th percentile, below the 60th, the rest; with --by, of the row's group.

  column   the input's files with a text column "bucket" behind their own, null
           where a row has no score
  folders  the input's files below DEST/head, DEST/middle and DEST/tail; rows
           without a score, if there are any, below DEST/unscored

DEST must be new or empty. The same command again goes on where it stopped.`,
		Example: `  dispatcher bucket examples/demo/out --by language --as folders --to buckets`,
		Args:    cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSlice("by", nil, "columns whose values make groups, each with percentiles of its own")
	f.String("as", "column", "column or folders")
	f.String("to", "", "folder for the files, also in a bucket: s3://BUCKET/KEY, gs://…, az://…")
	f.Bool("partial", false, "go on although rows have no score yet; those are left out")
	f.Bool("json", false, "print what was written as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var o curate.BucketOptions
		o.By, _ = f.GetStringSlice("by") // made above, as are the others
		o.As, _ = f.GetString("as")
		o.To, _ = f.GetString("to")
		partial, _ := f.GetBool("partial")
		asJSON, _ := f.GetBool("json")
		c, err := curate.Open(l.drain, args[0], partial)
		if err != nil {
			return err
		}
		r, err := c.Bucket(l.drain, o)
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if asJSON {
			return printJSON(w, r)
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "rows\ttokens\t  bucket")
		for i := range r.Buckets {
			b := &r.Buckets[i]
			fmt.Fprintf(t, "%s\t%s\t  %s\n", count(b.Rows), count(b.Tokens), b.Name())
		}
		if err := t.Flush(); err != nil {
			return err
		}
		printThresholds(w, r.Thresholds)
		printLeftOut(w, r.MissingRows, r.FailedFiles)
		_, err = fmt.Fprintf(w, "%d files in %s\n", r.Files, r.To)
		return err
	}
	return cmd
}
