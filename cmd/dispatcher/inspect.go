package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"surprisal/internal/curate"
	"surprisal/internal/dispatch"
	"surprisal/internal/report"
	"surprisal/internal/score"
)

func newInspect(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect OUT --row FILE:N | inspect --model DIR --text TEXT",
		Short: "Show one document, each token coloured by its surprisal",
		Long: `Show one document, each token coloured by its surprisal, and its totals. Where
output is no terminal, or NO_COLOR is set: a list of tokens with their nats.

N is the row in the input file, counted from 0. A document of an OUT without
--per-token columns is scored again with the run's model and the worker program
beside this one.`,
		Example: `  dispatcher inspect examples/demo/out --row 000_00000.parquet:18
  dispatcher inspect --model examples/demo/model --text 'To be, or not to be'
  dispatcher inspect --model examples/demo/model --text - < letter.txt`,
		Args: cobra.MaximumNArgs(1),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.String("row", "", "the document: input file and row, FILE:N")
	f.String("model", "", "checkpoint folder, to score --text with")
	f.String("tokenizer", "", "tokenizer.json that is elsewhere than in the model's folder")
	f.String("text", "", "a text, or - for what is on standard input")
	f.String("worker-bin", "", "worker program (default the one beside this program)")
	f.Bool("json", false, "print the tokens as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return inspect(cmd, l, args) }
	return cmd
}

// inspected is a document for machines.
type inspected struct {
	Document    string           `json:"document"`
	ID          string           `json:"id,omitempty"`
	Tokens      int64            `json:"n_tokens"`
	Bytes       *int64           `json:"n_bytes"`
	SumNLL      float64          `json:"sum_nll"`
	Perplexity  *float64         `json:"perplexity"`
	BitsPerByte *float64         `json:"bits_per_byte"`
	Top1        int64            `json:"n_top1"`
	Truncated   bool             `json:"truncated"`
	Error       string           `json:"error,omitempty"`
	List        []inspectedToken `json:"tokens"`
}

type inspectedToken struct {
	ID   int32    `json:"id"`
	Text string   `json:"text"`
	NLL  *float64 `json:"nll"` // null for the token that is only conditioned on
}

func inspect(cmd *cobra.Command, l life, args []string) error {
	f := cmd.Flags()
	row, _ := f.GetString("row") // newInspect made these
	model, _ := f.GetString("model")
	tokenizer, _ := f.GetString("tokenizer")
	text, _ := f.GetString("text")
	bin, _ := f.GetString("worker-bin")
	asJSON, _ := f.GetBool("json")
	log, _, _, err := logger(cmd, os.Stderr, os.Stderr, true)
	if err != nil {
		return err
	}
	var workerLog bytes.Buffer
	again := report.Rescorer{Local: dispatch.Local{WorkerBin: bin, WorkerLog: &workerLog, Log: log.Level(zerolog.ErrorLevel)}, Program: version}
	var doc *curate.Document
	var m *score.Manifest
	title := "text"
	switch {
	case len(args) == 1 && row != "" && !f.Changed("text"):
		c, err := curate.Open(l.drain, args[0], true)
		if err != nil {
			return err
		}
		if doc, err = documentAt(l, c, row); err != nil {
			return err
		}
		if err := again.Tokens(l.drain, c, []*curate.Document{doc}); err != nil {
			return fmt.Errorf("score %s again: %w", row, err)
		}
		m = c.Manifest
		title = fmt.Sprintf("%s, row %s", doc.File.Input.Rel, count(doc.Row))
	case len(args) == 0 && model != "" && f.Changed("text") && row == "":
		if text == "-" {
			b, err := io.ReadAll(os.Stdin)
			if err != nil {
				return fmt.Errorf("read standard input: %w", err)
			}
			text = string(b)
		}
		req := dispatch.Request{ModelDir: model, Tokenizer: tokenizer, Options: score.Options{
			Long: score.LongCarry, Special: score.SpecialText, Engine: score.EngineAuto,
		}}
		if doc, m, err = again.Text(l.drain, text, req); err != nil {
			return err
		}
	default:
		return flagError{errors.New("name a document by OUT --row FILE:N, or give --model DIR and --text TEXT")}
	}
	if doc.ID != "" {
		title += ", " + doc.ID
	}
	var pieces *report.Pieces
	if m.Model.Tokenizer != "" {
		if pieces, err = report.ReadPieces(m.Model.Tokenizer); err != nil {
			return err
		}
	}
	tokens := pieces.Tokens(doc.Score.TokenIDs, doc.Score.TokenNLL)
	w := cmd.OutOrStdout()
	if asJSON {
		return printJSON(w, machineView(title, doc, tokens))
	}
	return report.Print(w, title, doc.Score, tokens, colours())
}

// documentAt reads the document that FILE:N names.
func documentAt(l life, c *curate.Corpus, row string) (*curate.Document, error) {
	i := strings.LastIndexByte(row, ':')
	if i < 1 {
		return nil, flagError{fmt.Errorf("--row %q is not FILE:N", row)}
	}
	n, err := strconv.ParseInt(row[i+1:], 10, 64)
	if err != nil {
		return nil, flagError{fmt.Errorf("--row %q is not FILE:N: %q is no row", row, row[i+1:])}
	}
	file, err := c.Find(row[:i])
	if err != nil {
		return nil, err
	}
	return c.Document(l.drain, file, n)
}

func machineView(title string, doc *curate.Document, tokens []report.Token) inspected {
	s := doc.Score
	v := inspected{Document: title, ID: doc.ID, Tokens: s.Tokens, SumNLL: s.SumNLL, Top1: s.Top1, Truncated: s.Truncated, Error: s.Error}
	if s.Bytes >= 0 {
		v.Bytes = &s.Bytes
	}
	if p, ok := s.Perplexity(); ok && !math.IsInf(p, 0) {
		v.Perplexity = &p
	}
	if b, ok := s.BitsPerByte(); ok {
		v.BitsPerByte = &b
	}
	for _, t := range tokens {
		one := inspectedToken{ID: t.ID, Text: t.Text}
		if !t.Given {
			one.NLL = &t.NLL
		}
		v.List = append(v.List, one)
	}
	return v
}

// colours tells what standard output can show.
func colours() report.Colours {
	switch c := os.Getenv("COLORTERM"); {
	case os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(os.Stdout.Fd())):
		return report.Plain
	case c == "truecolor" || c == "24bit":
		return report.TrueColor
	}
	return report.Palette
}
