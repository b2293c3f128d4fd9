package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"surprisal/internal/cli"
	"surprisal/internal/dispatch"
	"surprisal/internal/report"
	"surprisal/internal/score"
	"surprisal/internal/usage"
)

// inspectOptions are the flags of inspect.
type inspectOptions struct {
	row, model, tokenizer, text, workerBin string
	asJSON                                 bool
	hasText                                bool // --text is given, perhaps empty
}

func newInspect(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect OUT --row FILE:N | inspect --model DIR --text TEXT",
		Short: "Show one document, each token coloured by its surprisal",
		Long: `Show one document, each token coloured by its surprisal, and its totals. Where the
output is not a terminal, or NO_COLOR is set: a list of tokens with their nats.

N is the row in the input file, counted from 0. A document of an OUT without
--per-token columns is scored again with the run's model and the worker program
in this program's folder.`,
		Example: `  dispatcher inspect examples/demo/out --row 000_00000.parquet:18
  dispatcher inspect --model examples/demo/model --text 'To be, or not to be'
  dispatcher inspect --model examples/demo/model --text - < letter.txt`,
		Args: cobra.MaximumNArgs(1),
	}
	var o inspectOptions
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.row, "row", "", "the document: input file and row, FILE:N")
	f.StringVar(&o.model, "model", "", "checkpoint folder, to score --text with")
	f.StringVar(&o.tokenizer, "tokenizer", "", "a tokenizer.json outside the model's folder")
	f.StringVar(&o.text, "text", "", "a text, or - for standard input")
	f.StringVar(&o.workerBin, "worker-bin", "", workerBinUsage)
	f.BoolVar(&o.asJSON, "json", false, "print the tokens as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.hasText = f.Changed("text")
		seen, err := a.inspect(&o, args)
		if err != nil {
			return err
		}
		if o.asJSON {
			return cli.PrintJSON(cmd.OutOrStdout(), seen)
		}
		return seen.Print(cmd.OutOrStdout(), colours())
	}
	return cmd
}

func (a *app) inspect(o *inspectOptions, args []string) (*report.Inspection, error) {
	again, err := a.rescorer(o.workerBin)
	if err != nil {
		return nil, err
	}
	switch {
	case len(args) == 1 && o.row != "" && !o.hasText:
		c, err := a.corpus(args[0], new(string), true)
		if err != nil {
			return nil, err
		}
		return again.InspectRow(a.Drain, c, o.row)
	case len(args) == 0 && o.model != "" && o.hasText && o.row == "":
		if err := cli.Resolve("--model", &o.model); err != nil {
			return nil, err
		}
		if err := cli.Resolve("--tokenizer", &o.tokenizer); err != nil {
			return nil, err
		}
		text := o.text
		if text == "-" {
			b, err := io.ReadAll(os.Stdin)
			if err != nil {
				return nil, fmt.Errorf("read standard input: %w", err)
			}
			text = string(b)
		}
		return again.InspectText(a.Drain, text, dispatch.Request{
			ModelDir: o.model, Tokenizer: o.tokenizer,
			Options: score.Options{Long: score.LongCarry, Special: score.SpecialText, Engine: score.EngineAuto},
		})
	}
	return nil, usage.Errorf("give OUT --row FILE:N, or --model DIR and --text TEXT")
}

// rescorer scores single documents again; the log of its worker is kept for errors.
func (a *app) rescorer(workerBin string) (*report.Rescorer, error) {
	log, err := a.stderr(zerolog.WarnLevel)
	if err != nil {
		return nil, err
	}
	return &report.Rescorer{
		Local:   dispatch.Local{WorkerBin: workerBin, WorkerLog: new(bytes.Buffer), Log: log.Level(zerolog.ErrorLevel)},
		Program: version,
	}, nil
}

// colours says what standard output can show.
func colours() report.Colours {
	switch c := os.Getenv("COLORTERM"); {
	case os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(os.Stdout.Fd())):
		return report.Plain
	case c == "truecolor" || c == "24bit":
		return report.TrueColor
	}
	return report.Palette
}
