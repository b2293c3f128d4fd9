package report

import (
	"strings"
	"testing"

	"surprisal/internal/score"
)

// TestPrint: a document can't drive the terminal.
func TestPrint(t *testing.T) {
	tokens := []Token{
		{ID: 1, Text: "<s>", Given: true}, {ID: 2, Text: "a\x1b]0;owned\x07", NLL: .1}, {ID: 3, Text: "b\nc\r\x9b31m",
			NLL: 7}, {ID: 4, Text: "\u202edlrow", NLL: 40},
	}
	s := score.Score{Tokens: 3, SumNLL: 47.1, Bytes: 12, Top1: 1}
	for c, want := range map[Colours]string{
		Plain:     "   7.000         3  \"b\\nc\\r",
		Palette:   "\x1b[30;48;5;136mb\x1b[0m\n\x1b[30;48;5;136mc",
		TrueColor: "\x1b[30;48;2;255;160;70m",
	} {
		var b strings.Builder
		if err := Print(&b, "x.parquet, row 3\x1b[2J", s, tokens, c); err != nil {
			t.Fatal(err)
		}
		out := b.String()
		if !strings.Contains(out, want) || !strings.Contains(out, "perplexity     6.58e+06") {
			t.Errorf("%d: %q", c, out)
		}
		for _, bad := range []string{"\x1b]", "\x1b[2J", "\x07", "\r", "\u009b", "\u202e"} {
			if strings.Contains(out, bad) {
				t.Errorf("%d: the terminal gets %q", c, bad)
			}
		}
		if c == Plain && strings.Contains(out, "\x1b") {
			t.Error("a plain terminal gets colours")
		}
	}
	var b strings.Builder
	if err := Print(&b, "x", score.Score{Error: "null text"}, nil, Plain); err != nil || !strings.Contains(b.String(),
		"no score: null text") {
		t.Errorf("%q %v", b.String(), err)
	}
}
