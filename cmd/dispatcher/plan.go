package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"surprisal/internal/dispatch"
	"surprisal/internal/score"
)

func newPlan(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan --model DIR [--out DIR] INPUT...",
		Short: "Show what would be queued; touches nothing",
		Long: `Show what would be queued: files, row groups, jobs, estimated tokens. Reads the
model's digest and the files' footers (and their token_count column, if there is
one); writes nothing. With --out, what is committed there already is left out. Jobs are
those of submit, and of run with one worker: run cuts smaller ones for several.`,
		Example: `  dispatcher plan --model examples/demo/model examples/demo/corpus
  dispatcher plan --model gdn2_kla_1.3B --json 'fineweb/**/*.parquet'`,
		Args: cobra.MinimumNArgs(1),
	}
	requestFlags(cmd)
	cmd.Flags().Bool("json", false, "print the plan as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := request(cmd, args)
		if err != nil {
			return err
		}
		m, _, err := dispatch.Plan(l.drain, req)
		if err != nil {
			return err
		}
		done := map[string]bool{}
		if m.Out != "" {
			c, err := dispatch.Reconcile(l.drain, m)
			if err != nil {
				return err
			}
			done = c.Jobs
		}
		return printPlan(cmd, m, done)
	}
	return cmd
}

// planned is one file of a plan, for machines.
type planned struct {
	File      string `json:"file"`
	Bytes     int64  `json:"bytes"`
	Rows      int64  `json:"rows"`
	RowGroups int    `json:"row_groups"`
	Jobs      int    `json:"jobs"`
	Committed int    `json:"committed_jobs"`
	Tokens    int64  `json:"estimated_tokens"`
	Error     string `json:"error,omitempty"`
}

type planOutput struct {
	Files        []planned `json:"files"`
	Total        planned   `json:"total"`
	Model        string    `json:"model"`
	ModelDigest  string    `json:"model_digest"`
	ConfigDigest string    `json:"config_digest"`
	FailedFiles  int       `json:"failed_files"`
}

func printPlan(cmd *cobra.Command, m *score.Manifest, done map[string]bool) error {
	out := planOutput{Model: m.Model.Dir, ModelDigest: m.Model.Digest, ConfigDigest: m.ConfigDigest}
	out.Total.File = "total"
	for i := range m.Files {
		f := &m.Files[i]
		p := planned{
			File: f.Input.Rel, Bytes: f.Input.Size, Rows: f.Rows, RowGroups: f.RowGroups, Jobs: len(f.Cuts),
			Tokens: f.Tokens, Error: f.Error,
		}
		for _, j := range m.FileJobs(i) {
			if done[j.ID] {
				p.Committed++
			}
		}
		t := &out.Total
		t.Bytes, t.Rows, t.RowGroups = t.Bytes+p.Bytes, t.Rows+p.Rows, t.RowGroups+p.RowGroups
		t.Jobs, t.Committed, t.Tokens = t.Jobs+p.Jobs, t.Committed+p.Committed, t.Tokens+p.Tokens
		if p.Error != "" {
			out.FailedFiles++
		}
		out.Files = append(out.Files, p)
	}
	w := cmd.OutOrStdout()
	if asJSON, _ := cmd.Flags().GetBool("json"); asJSON {
		if err := printJSON(w, out); err != nil {
			return err
		}
	} else {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "rows\trow groups\tjobs\tcommitted\test. tokens\tMB\t  file")
		for _, p := range append(out.Files, out.Total) {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.1f\t  %s", count(p.Rows), count(int64(p.RowGroups)), count(int64(p.Jobs)),
				count(int64(p.Committed)), count(p.Tokens), float64(p.Bytes)/1e6, p.File)
			if p.Error != "" {
				fmt.Fprintf(t, ": %s", oneLine(p.Error))
			}
			fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if out.FailedFiles > 0 {
		return errUnfinished
	}
	return nil
}
