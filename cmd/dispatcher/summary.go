package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"surprisal/internal/cli"
	"surprisal/internal/dispatch"
	"surprisal/internal/place"
	"surprisal/internal/score"
)

// printSummary prints the result of a run.
func printSummary(w io.Writer, s *dispatch.Summary, asJSON bool) error {
	if asJSON {
		return cli.PrintJSON(w, s)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, a ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, a...)) }
	fmt.Fprintln(t)
	line("run", "%s", s.Run)
	line("documents", "%s", cli.Count(s.Documents))
	line("tokens", "%s", cli.Count(s.Tokens))
	if s.ScoredTokens > 0 {
		took := time.Duration(s.Seconds * float64(time.Second)).Round(100 * time.Millisecond)
		line("speed", "%s tokens/s (%s tokens in %s, loading included)",
			cli.Count(int64(s.TokensPerSec)), cli.Count(s.ScoredTokens), took)
	} else if s.Documents > 0 {
		line("speed", "everything had been scored before")
	}
	if s.JoulesPerMillionTokens != nil {
		line("energy", "%s J per million tokens (%s kWh)", num(*s.JoulesPerMillionTokens), num(*s.Joules/3.6e6))
	}
	if s.GPUDaysPerBillionTokens != nil {
		line("GPU time", "%s GPU-days per billion tokens (%s GPU-hours)", num(*s.GPUDaysPerBillionTokens),
			num(*s.GPUSeconds/3600))
	}
	if p := s.Perplexity; p != nil {
		line("perplexity", "p5 %s   p25 %s   median %s   p75 %s   p95 %s",
			num(p["p5"]), num(p["p25"]), num(p["p50"]), num(p["p75"]), num(p["p95"]))
		of := fmt.Sprintf("perplexity %s", num(s.CorpusPerplexity))
		if s.BitsPerByte > 0 {
			of += fmt.Sprintf(", %.3f bits per byte", s.BitsPerByte)
		}
		line("all text", "%s", of)
	}
	if s.Truncated > 0 {
		line("truncated", "%s documents", cli.Count(s.Truncated))
	}
	line("failed rows", "%s", cli.Count(s.FailedRows))
	for i, r := range s.RowErrors {
		if i == 5 {
			line("", "and %d other reasons", len(s.RowErrors)-i)
			break
		}
		line("", "%s × %s", cli.Count(r.Rows), r.Error)
	}
	line("failed files", "%d", len(s.FailedFiles))
	for _, f := range s.FailedFiles {
		line("", "%s: %s", f.File, cli.OneLine(f.Error))
	}
	if len(s.DeadJobs) > 0 {
		line("dead jobs", "%d of %d", len(s.DeadJobs), s.Jobs)
	}
	for i, d := range s.DeadJobs {
		if i == 20 {
			line("", "and %d more", len(s.DeadJobs)-i)
			break
		}
		line("", "%s rows %d-%d: %s", d.File, d.First, d.Last, cli.OneLine(d.Reason))
	}
	for i, f := range s.WorkerFailures {
		name, times, then := "", "once", "restarted"
		if i == 0 {
			name = "worker died"
		}
		if f.Times > 1 {
			times = fmt.Sprintf("%d times", f.Times)
		}
		if f.Lost {
			then = "lost; the others took its jobs"
		}
		line(name, "%s, %s: %s (%s)", f.Worker, times, cli.OneLine(f.Error), then)
	}
	line("scores", "%s", s.Out)
	if err := t.Flush(); err != nil {
		return err
	}
	if s.Complete {
		_, err := fmt.Fprintf(w, "\ncomplete: every row has a score or an error (%s)\n",
			place.Join(s.Out, score.SuccessName))
		return err
	}
	_, err := fmt.Fprintf(w, "\nNOT complete: no %s was written; the same command again retries what is missing\n",
		score.SuccessName)
	return err
}

// num writes a perplexity with about three digits.
func num(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.3g", v)
	case v >= 100:
		return cli.Count(int64(v + .5))
	default:
		return fmt.Sprintf("%.3g", v)
	}
}
