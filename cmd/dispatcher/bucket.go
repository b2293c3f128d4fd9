package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/curate"
)

const (
	toUsage      = "folder for the files, also in a bucket: s3://BUCKET/KEY, gs://…, az://…"
	byUsage      = "columns whose values form groups, each with percentiles of its own"
	partialUsage = "continue although some rows have no score yet; they are left out"
)

func newBucket(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bucket OUT --to DEST [--by COLUMN]",
		Short: "Sort documents into head, middle and tail by perplexity, as CCNet does",
		Long: `Sort documents into head, middle and tail by perplexity, as CCNet does: below the
30th percentile, below the 60th, and the rest; with --by, of the row's group.

  column   the input's files with a text column "bucket" after their own, null
           where a row has no score
  folders  the input's files below DEST/head, DEST/middle and DEST/tail; rows
           without a score, if there are any, below DEST/unscored

DEST must be new or empty. The same command again continues where it stopped.`,
		Example: `  dispatcher bucket examples/demo/out --by language --as folders --to buckets`,
		Args:    cobra.ExactArgs(1),
	}
	var (
		o               curate.BucketOptions
		partial, asJSON bool
	)
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSliceVar(&o.By, "by", nil, byUsage)
	f.StringVar(&o.As, "as", "column", "column or folders")
	f.StringVar(&o.To, "to", "", toUsage)
	f.BoolVar(&partial, "partial", false, partialUsage)
	f.BoolVar(&asJSON, "json", false, "print the result as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.corpus(args[0], &o.To, partial)
		if err != nil {
			return err
		}
		r, err := c.Bucket(a.Drain, o)
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if asJSON {
			return cli.PrintJSON(w, r)
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "rows\ttokens\t  bucket")
		for i := range r.Buckets {
			b := &r.Buckets[i]
			fmt.Fprintf(t, "%s\t%s\t  %s\n", cli.Count(b.Rows), cli.Count(b.Tokens), b.Name())
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

// corpus opens a run's output folder, and resolves --to.
func (a *app) corpus(out string, to *string, partial bool) (*curate.Corpus, error) {
	if err := cli.Resolve("", &out); err != nil {
		return nil, err
	}
	if err := cli.Resolve("--to", to); err != nil {
		return nil, err
	}
	return curate.Open(a.Drain, out, partial)
}
