package score

import (
	"math"
	"slices"
)

// OutputColumns are the columns that a score file may have of its own, in order.
var OutputColumns = []string{
	"row", "n_tokens", "n_bytes", "sum_nll", "perplexity", "bits_per_byte", "n_top1", "truncated", "error", "token_ids",
	"token_nll",
}

// ConditionalColumns are those that only a conditional run's score files have,
// after error.
var ConditionalColumns = []string{"n_context_tokens", "greedy"}

// Columns are the columns that a score file of these options has of its own, in
// order.
func (o Options) Columns() []string {
	lists := len(OutputColumns) - 2 // token_ids, token_nll
	c := slices.Clone(OutputColumns[:lists])
	if o.Conditional() {
		c = append(c, ConditionalColumns...)
	}
	if o.PerToken {
		c = append(c, OutputColumns[lists:]...)
	}
	return c
}

// Score is what one row gets.
type Score struct {
	Row int64
	// Tokens scored, the first id not among them.
	Tokens int64
	// ContextTokens were conditioned on, the beginning token among them; 0 unless
	// the run is conditional.
	ContextTokens int64
	// Bytes of UTF-8 text, of a target with what it took from its context; -1 when unknown
	// (ready-made ids, or no text).
	Bytes int64
	// SumNLL in nats, summed in float64 in token order.
	SumNLL float64
	// Top1 counts targets that were the model's first choice.
	Top1      int64
	Truncated bool
	// Error is empty, or why the row has no score.
	Error string
	// TokenIDs [Tokens+1] (in a conditional run the first is the context's last) and TokenNLL
	// [Tokens], with Options.PerToken only;
	// TokenNLL[i] is of TokenIDs[i+1].
	TokenIDs []int32
	TokenNLL []float32
}

// Perplexity is exp(SumNLL/Tokens); ok is false when nothing was scored.
func (s *Score) Perplexity() (p float64, ok bool) {
	if s.Tokens == 0 || s.Error != "" {
		return 0, false
	}
	return math.Exp(s.SumNLL / float64(s.Tokens)), true
}

// Greedy tells whether every token scored was the model's first choice; ok is
// false when nothing was scored.
func (s *Score) Greedy() (greedy, ok bool) {
	return s.Top1 == s.Tokens, s.Tokens > 0 && s.Error == ""
}

// BitsPerByte is SumNLL in bits over Bytes; ok is false when Bytes is 0 or unknown.
func (s *Score) BitsPerByte() (b float64, ok bool) {
	if s.Bytes <= 0 || s.Error != "" {
		return 0, false
	}
	return s.SumNLL / math.Ln2 / float64(s.Bytes), true
}
