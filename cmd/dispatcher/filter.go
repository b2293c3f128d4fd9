package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"surprisal/internal/curate"
)

func newFilter(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "filter OUT --where EXPR --to DEST",
		Short: "Copy the input's rows that an expression over the scores lets pass",
		Long: `Copy the input's rows that an expression over the scores lets pass, with all their
columns, to parquet files of the same names in DEST.

EXPR compares score columns and columns of the input with numbers, texts and
percentiles: <  <=  >  >=  ==  !=, between … and …, in (…), is null, and, or, not,
parentheses. p60 is the 60th percentile of the column that it is compared with,
exact, over all rows that have a value; with --by, over those of the row's group.
A row without a score passes no comparison.

DEST must be new or empty. The same command again, after whatever cut it off,
goes on where it stopped.`,
		Example: `  dispatcher filter examples/demo/out --where 'perplexity < p60' --by dump --to kept
  dispatcher filter scores --where 'bits_per_byte between p5 and p60 and n_tokens >= 50' --to kept --dry-run
  dispatcher filter scores --where 'language == "en" and not truncated' --to kept --with-scores`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.String("where", "", "what must be true of a row")
	f.StringSlice("by", nil, "columns whose values make groups, each with percentiles of its own")
	f.String("to", "", "folder for the rows that pass, also in a bucket: s3://BUCKET/KEY, gs://…, az://…")
	f.Bool("with-scores", false, "add the score columns")
	f.Bool("dry-run", false, "only count")
	f.Bool("partial", false, "go on although rows have no score yet; those are left out")
	f.Bool("json", false, "print what was kept as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var o curate.FilterOptions
		o.Where, _ = f.GetString("where") // made above, as are the others
		o.By, _ = f.GetStringSlice("by")
		o.To, _ = f.GetString("to")
		o.WithScores, _ = f.GetBool("with-scores")
		o.DryRun, _ = f.GetBool("dry-run")
		partial, _ := f.GetBool("partial")
		asJSON, _ := f.GetBool("json")
		if o.Where == "" {
			return flagError{fmt.Errorf("no condition is given: --where 'perplexity < p60'")}
		}
		c, err := curate.Open(l.drain, args[0], partial)
		if err != nil {
			return err
		}
		r, err := c.Filter(l.drain, o)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), r)
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
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t  %s\n", count(c.Kept), count(c.Rows), percent(c.Kept, c.Rows),
			count(c.KeptTokens), count(c.Tokens), percent(c.KeptTokens, c.Tokens), oneLine(name))
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

// printThresholds says what percentiles came to.
func printThresholds(w io.Writer, list []curate.Threshold) {
	for i := range list {
		th := &list[i]
		of, is := "", "has no value"
		if th.Name() != "" {
			of = " of " + oneLine(th.Name())
		}
		if th.Value != nil {
			is = fmt.Sprintf("is %.6g", *th.Value)
		}
		fmt.Fprintf(w, "p%g of %s%s %s\n", th.Percentile, th.Column, of, is)
	}
}

// printLeftOut says what --partial went on without.
func printLeftOut(w io.Writer, rows int64, files []string) {
	if rows > 0 {
		fmt.Fprintf(w, "left out: %s rows that have no score yet\n", count(rows))
	}
	for _, f := range files {
		fmt.Fprintf(w, "left out: %s, which could not be scored\n", oneLine(f))
	}
}

func percent(a, b int64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", 100*float64(a)/float64(b))
}
