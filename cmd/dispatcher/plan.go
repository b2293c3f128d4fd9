package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/dispatch"
)

func newPlan(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan --model DIR [--out DIR] INPUT...",
		Short: "Show what would be queued, and change nothing",
		Long: `Show what would be queued: files, row groups, jobs, estimated tokens. Reads the
model's digest and the files' footers (and their token_count column, if there is
one); writes nothing. With --out, committed jobs are left out. The jobs are those of
submit, and of run with one worker: for several workers run makes smaller jobs.`,
		Example: `  dispatcher plan --model examples/demo/model examples/demo/corpus
  dispatcher plan --model gdn2_kla_1.3B --json 'fineweb/**/*.parquet'`,
		Args: cobra.MinimumNArgs(1),
	}
	r := newRequest(cmd)
	var asJSON bool
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the plan as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := r.of(args)
		if err != nil {
			return err
		}
		plan, err := dispatch.GetOutline(a.Drain, req)
		if err != nil {
			return err
		}
		if asJSON {
			err = cli.PrintJSON(cmd.OutOrStdout(), plan)
		} else {
			err = printPlan(cmd.OutOrStdout(), plan)
		}
		if err == nil && plan.FailedFiles > 0 {
			err = errUnfinished
		}
		return err
	}
	return cmd
}

func printPlan(w io.Writer, plan *dispatch.Outline) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "rows\trow groups\tjobs\tcommitted\test. tokens\tMB\t  file")
	for _, p := range append(plan.Files, plan.Total) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.1f\t  %s", cli.Count(p.Rows), cli.Count(p.RowGroups), cli.Count(p.Jobs),
			cli.Count(p.Committed), cli.Count(p.Tokens), float64(p.Bytes)/1e6, p.File)
		if p.Error != "" {
			fmt.Fprintf(t, ": %s", cli.OneLine(p.Error))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}
