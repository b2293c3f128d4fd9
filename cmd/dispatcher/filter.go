package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/curate"
	"surprisal/internal/usage"
)

func newFilter(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "filter OUT --where EXPR --to DEST",
		Short: "Copy the input rows that match an expression over the scores",
		Long: `Copy the input rows that match an expression over the scores, with all their columns,
to parquet files of the same names in DEST.

EXPR compares score columns and input columns with numbers, texts and percentiles:
<  <=  >  >=  ==  !=, between … and …, in (…), is null, and, or, not, parentheses.
p60 is the 60th percentile of the column that it is compared with, exact, over all
rows that have a value; with --by, over those of the row's group.
A row without a score matches no comparison.

DEST must be new or empty. If it was interrupted, the same command continues where
it stopped.`,
		Example: `  dispatcher filter examples/demo/out --where 'perplexity < p60' --by dump --to kept
  dispatcher filter scores --where 'bits_per_byte between p5 and p60 and n_tokens >= 50' --to kept --dry-run
  dispatcher filter scores --where 'language == "en" and not truncated' --to kept --with-scores`,
		Args: cobra.ExactArgs(1),
	}
	var (
		o               curate.FilterOptions
		partial, asJSON bool
	)
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.Where, "where", "", "the condition that a row must meet")
	f.StringSliceVar(&o.By, "by", nil, byUsage)
	f.StringVar(&o.To, "to", "", "folder for the matching rows, also in a bucket: s3://BUCKET/KEY, gs://…, az://…")
	f.BoolVar(&o.WithScores, "with-scores", false, "add the score columns")
	f.BoolVar(&o.DryRun, "dry-run", false, "only count")
	f.BoolVar(&partial, "partial", false, partialUsage)
	f.BoolVar(&asJSON, "json", false, "print the result as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.Where == "" {
			return usage.Errorf("--where is required, for example --where 'perplexity < p60'")
		}
		c, err := a.corpus(args[0], &o.To, partial)
		if err != nil {
			return err
		}
		r, err := c.Filter(a.Drain, o)
		if err != nil {
			return err
		}
		if asJSON {
			return cli.PrintJSON(cmd.OutOrStdout(), r)
		}
		return printKept(cmd.OutOrStdout(), r)
	}
	return cmd
}

// printKept prints what a filter kept of each group.
func printKept(w io.Writer, r *curate.Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "kept rows\tof\t%\tkept tokens\tof\t%\t  group")
	line := func(name string, c curate.Count) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t  %s\n", cli.Count(c.Kept), cli.Count(c.Rows), percent(c.Kept, c.Rows),
			cli.Count(c.KeptTokens), cli.Count(c.Tokens), percent(c.KeptTokens, c.Tokens), cli.OneLine(name))
	}
	for i := range r.Groups {
		line(r.Groups[i].Name(), r.Groups[i])
	}
	line("all", r.Total)
	if err := t.Flush(); err != nil {
		return err
	}
	printThresholds(w, r.Thresholds)
	printLeftOut(w, r.MissingRows, r.FailedFiles)
	if r.DryRun {
		fmt.Fprintln(w, "nothing was written (--dry-run)")
		return nil
	}
	_, err := fmt.Fprintf(w, "%d files in %s\n", r.Files, r.To)
	return err
}

// printThresholds prints the value of each percentile.
func printThresholds(w io.Writer, list []curate.Threshold) {
	for i := range list {
		th := &list[i]
		of, is := "", "has no value"
		if th.Name() != "" {
			of = " of " + cli.OneLine(th.Name())
		}
		if th.Value != nil {
			is = fmt.Sprintf("is %.6g", *th.Value)
		}
		fmt.Fprintf(w, "p%g of %s%s %s\n", th.Percentile, th.Column, of, is)
	}
}

// printLeftOut prints what --partial left out.
func printLeftOut(w io.Writer, rows int64, files []string) {
	if rows > 0 {
		fmt.Fprintf(w, "left out: %s rows that have no score yet\n", cli.Count(rows))
	}
	for _, f := range files {
		fmt.Fprintf(w, "left out: %s, which could not be scored\n", cli.OneLine(f))
	}
}

func percent(a, b int64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", 100*float64(a)/float64(b))
}
