package score

import "math"

// OutputColumns are the columns that a score file has of its own, in order.
var OutputColumns = []string{
	"row", "n_tokens", "n_bytes", "sum_nll", "perplexity", "bits_per_byte", "n_top1", "truncated", "error", "token_ids", "token_nll",
}

// Score is what one row gets.
type Score struct {
	Row int64
	// Tokens scored, the first id not among them.
	Tokens int64
	// Bytes of UTF-8 text; -1 when unknown (ready-made ids, or no text).
	Bytes int64
	// SumNLL in nats, summed in float64 in token order.
	SumNLL float64
	// Top1 counts targets that were the model's first choice.
	Top1      int64
	Truncated bool
	// Error is empty, or why the row has no score.
	Error string
	// TokenIDs [Tokens+1] and TokenNLL [Tokens], with Options.PerToken only;
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

// BitsPerByte is SumNLL in bits over Bytes; ok is false when Bytes is 0 or unknown.
func (s *Score) BitsPerByte() (b float64, ok bool) {
	if s.Bytes <= 0 || s.Error != "" {
		return 0, false
	}
	return s.SumNLL / math.Ln2 / float64(s.Bytes), true
}
