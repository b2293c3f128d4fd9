package report

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode"

	"surprisal/internal/score"
)

// Colours is the colour support of a terminal.
type Colours uint8

// The kinds of terminals.
const (
	Plain     Colours = iota // none: a list of tokens
	Palette                  // 256 colours
	TrueColor                // 24 bits
)

// shades of surprisal, from little to much: background and foreground.
var shades = [levels]struct {
	rgb     [3]uint8
	palette uint8
	black   bool // text
}{
	{}, {[3]uint8{70, 52, 40}, 236, false}, {[3]uint8{96, 62, 36}, 94, false}, {[3]uint8{124, 74, 30}, 130, false},
	{[3]uint8{160, 88, 24}, 136, true}, {[3]uint8{196, 104, 20}, 172, true}, {[3]uint8{228, 122, 24}, 208,
		true}, {[3]uint8{255, 160, 70}, 214, true},
}

func (c Colours) begin(level int) string {
	s := shades[level]
	if c == Plain || level == 0 {
		return ""
	}
	fg := "97"
	if s.black {
		fg = "30"
	}
	if c == TrueColor {
		return fmt.Sprintf("\x1b[%s;48;2;%d;%d;%dm", fg, s.rgb[0], s.rgb[1], s.rgb[2])
	}
	return fmt.Sprintf("\x1b[%s;48;5;%dm", fg, s.palette)
}

// visible makes a text safe for a terminal: characters that would move its cursor, change
// its state or turn the writing direction are replaced.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || (unicode.IsPrint(r) && !unicode.Is(unicode.Bidi_Control, r)) {
			return r
		}
		return '�'
	}, s)
}

// Print writes a document's tokens, coloured by surprisal with a legend or, in a plain
// terminal, one per line with its nats, and then its totals.
func Print(w io.Writer, title string, s score.Score, tokens []Token, c Colours) error {
	var b strings.Builder
	fmt.Fprintln(&b, visible(title))
	if s.Error != "" {
		fmt.Fprintf(&b, "no score: %s\n", visible(s.Error))
		_, err := io.WriteString(w, b.String())
		return err
	}
	if c == Plain {
		fmt.Fprintf(&b, "%8s  %8s  token\n", "nats", "id")
		for _, t := range tokens {
			nats := fmt.Sprintf("%.3f", t.NLL)
			if t.Given {
				nats = "given"
			}
			fmt.Fprintf(&b, "%8s  %8d  %s\n", nats, t.ID, strconv.QuoteToGraphic(t.Text))
		}
	} else {
		b.WriteString("surprisal in nats:")
		for l := range levels {
			name := fmt.Sprintf(" %g–%g ", float64(l)*natsALevel, float64(l+1)*natsALevel)
			if l == levels-1 {
				name = fmt.Sprintf(" %g or more ", float64(l)*natsALevel)
			}
			b.WriteString(" " + c.begin(l) + name + "\x1b[0m")
		}
		b.WriteString("\n\n")
		for _, t := range tokens {
			if t.Given {
				continue
			}
			begin := c.begin(level(t.NLL))
			// A line's end is not coloured, or the rest of the line would be.
			for i, part := range strings.Split(visible(t.Text), "\n") {
				if i > 0 {
					b.WriteByte('\n')
				}
				if part != "" && begin != "" {
					part = begin + part + "\x1b[0m"
				}
				b.WriteString(part)
			}
		}
		b.WriteString("\n\n")
	}
	fmt.Fprintf(&b, "tokens         %s\n", count(s.Tokens))
	fmt.Fprintf(&b, "surprisal      %.3f nats, %.3f per token\n", s.SumNLL, s.SumNLL/math.Max(1, float64(s.Tokens)))
	if p, ok := s.Perplexity(); ok {
		fmt.Fprintf(&b, "perplexity     %s\n", number(p))
	}
	if p, ok := s.BitsPerByte(); ok {
		fmt.Fprintf(&b, "bits per byte  %.3f\n", p)
	}
	if s.Tokens > 0 {
		fmt.Fprintf(&b, "first choice   %s of %s tokens (%s)\n", count(s.Top1), count(s.Tokens),
			share(s.Top1, s.Tokens))
	}
	if s.Truncated {
		b.WriteString("truncated      tokens after --max-length have no score\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
