package report

import (
	"context"
	"fmt"
	"io"
	"math"

	"surprisal/internal/curate"
	"surprisal/internal/dispatch"
	"surprisal/internal/score"
)

// Inspection is one document, token by token.
type Inspection struct {
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
	List        []InspectedToken `json:"tokens"`

	score  score.Score
	tokens []Token
}

// InspectedToken is one token of an Inspection.
type InspectedToken struct {
	ID   int32    `json:"id"`
	Text string   `json:"text"`
	NLL  *float64 `json:"nll"` // null for the token that is only conditioned on
}

// InspectRow shows the document of a corpus that FILE:N names; it is scored again if
// OUT has no scores of its tokens.
func (r *Rescorer) InspectRow(ctx context.Context, c *curate.Corpus, row string) (*Inspection, error) {
	doc, err := c.DocumentAt(ctx, row)
	if err != nil {
		return nil, err
	}
	if err := r.Tokens(ctx, c, []*curate.Document{doc}); err != nil {
		return nil, fmt.Errorf("score %s again: %w", row, err)
	}
	return inspect(fmt.Sprintf("%s, row %s", doc.File.Input.Rel, count(doc.Row)), doc, c.Manifest)
}

// InspectText scores a text with the model of a request.
func (r *Rescorer) InspectText(ctx context.Context, text string, req dispatch.Request) (*Inspection, error) {
	doc, m, err := r.text(ctx, text, req)
	if err != nil {
		return nil, err
	}
	return inspect("text", doc, m)
}

func inspect(title string, doc *curate.Document, m *score.Manifest) (*Inspection, error) {
	if doc.ID != "" {
		title += ", " + doc.ID
	}
	var pieces *Pieces
	if m.Model.Tokenizer != "" {
		var err error
		if pieces, err = ReadPieces(m.Model.Tokenizer); err != nil {
			return nil, err
		}
	}
	s := doc.Score
	v := &Inspection{
		Document: title, ID: doc.ID, Tokens: s.Tokens, SumNLL: s.SumNLL, Top1: s.Top1, Truncated: s.Truncated,
		Error: s.Error,
		score: s, tokens: pieces.Tokens(s.TokenIDs, s.TokenNLL),
	}
	if s.Bytes >= 0 {
		v.Bytes = &s.Bytes
	}
	if p, ok := s.Perplexity(); ok && !math.IsInf(p, 0) {
		v.Perplexity = &p
	}
	if b, ok := s.BitsPerByte(); ok {
		v.BitsPerByte = &b
	}
	for _, t := range v.tokens {
		one := InspectedToken{ID: t.ID, Text: t.Text}
		if !t.Given {
			one.NLL = &t.NLL
		}
		v.List = append(v.List, one)
	}
	return v, nil
}

// Print writes the tokens for a terminal, and then the totals.
func (v *Inspection) Print(w io.Writer, c Colours) error {
	return Print(w, v.Document, v.score, v.tokens, c)
}
