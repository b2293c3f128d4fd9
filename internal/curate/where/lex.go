package where

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
)

// Error is what is wrong with an expression, and where.
type Error struct {
	Src string
	At  int // byte in Src
	Msg string
}

// Error gives one line; Caret shows the place.
func (e *Error) Error() string {
	return fmt.Sprintf("%s at character %d of %q", e.Msg, utf8.RuneCountInString(e.Src[:e.At])+1, e.Src)
}

// caretBefore and caretAfter bound what Caret shows before and after the place, in
// columns, so that both lines fit in a terminal.
const caretBefore, caretAfter = 50, 25

// Caret gives two lines: the expression, or its part around the place, and a mark
// below the place. Characters may be of any width; tabs, line breaks and what a
// terminal would not show as itself are replaced.
func (e *Error) Caret() string {
	columns := runewidth.Condition{StrictEmojiNeutral: true}
	before, after := visible(e.Src[:e.At]), visible(e.Src[e.At:])
	if columns.StringWidth(before) > caretBefore {
		before = columns.TruncateLeft(before, columns.StringWidth(before)-caretBefore+1, "…")
	}
	after = columns.Truncate(after, caretAfter, "…")
	return before + after + "\n" + strings.Repeat(" ", columns.StringWidth(before)) + "^"
}

// visible replaces characters that move a terminal's cursor, change its state or turn
// the writing direction.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return '\ufffd'
		}
		return r
	}, s)
}

type tokenKind uint8

const (
	tEnd tokenKind = iota
	tWord
	tName // a word in backquotes
	tNumber
	tText
	tOp // one of operators
)

type token struct {
	kind tokenKind
	at   int
	text string // words as written, texts without quotes
}

// what describes a token for messages.
func (t token) what() string {
	switch t.kind {
	case tEnd:
		return "the end"
	case tText:
		return strconv.Quote(t.text)
	}
	return t.text
}

// operators, longest first.
var operators = []string{"<=", ">=", "==", "!=", "<>", "<", ">", "=", "(", ")", ",", "-"}

// meant are what other languages write for ours.
var meant = map[byte]string{'&': "and", '|': "or", '!': "not", '~': "not"}

// maxExpr bounds an expression, and so how deep it nests.
const maxExpr = 16 << 10

func lex(src string) ([]token, error) {
	if len(src) > maxExpr {
		return nil, &Error{src[:0], 0, fmt.Sprintf("the expression has more than %d bytes", maxExpr)}
	}
	if !utf8.ValidString(src) {
		return nil, &Error{"", 0, "the expression is not UTF-8"}
	}
	var tokens []token
	for at := 0; ; {
		rest := strings.TrimLeftFunc(src[at:], unicode.IsSpace)
		at = len(src) - len(rest)
		if rest == "" {
			return append(tokens, token{tEnd, at, ""}), nil
		}
		t, n, err := next(src, at)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, t)
		at += n
	}
}

// next reads the token at at and says how many bytes it has.
func next(src string, at int) (token, int, error) {
	rest := src[at:]
	switch c := rest[0]; {
	case c == '"' || c == '\'' || c == '`':
		text, n := quoted(rest)
		if n == 0 {
			return token{}, 0, &Error{src, at, "unclosed quote"}
		}
		kind := tText
		if c == '`' {
			kind = tName
			if text == "" {
				return token{}, 0, &Error{src, at, "a column without a name"}
			}
		}
		return token{kind, at, text}, n, nil
	case c >= '0' && c <= '9' || c == '.':
		n := len(rest) - len(strings.TrimLeft(rest, "0123456789.eE_"))
		// 1e-5: a sign belongs to the number behind an e.
		for n < len(rest) && (rest[n] == '-' || rest[n] == '+') && (rest[n-1] == 'e' || rest[n-1] == 'E') {
			n++
			n += len(rest[n:]) - len(strings.TrimLeft(rest[n:], "0123456789"))
		}
		text := strings.ReplaceAll(rest[:n], "_", "")
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			return token{}, 0, &Error{src, at, fmt.Sprintf("%s is not a number", rest[:n])}
		}
		return token{tNumber, at, text}, n, nil
	}
	if n := len(rest) - len(strings.TrimLeftFunc(rest, wordRune)); n > 0 {
		// A percentile may have a decimal: p99.5
		if isPercentile(rest[:n]) && n+1 < len(rest) && rest[n] == '.' {
			if d := len(rest[n+1:]) - len(strings.TrimLeft(rest[n+1:], "0123456789")); d > 0 {
				n += 1 + d
			}
		}
		// A field of a column: meta.lang
		for n+1 < len(rest) && rest[n] == '.' {
			r, _ := utf8.DecodeRuneInString(rest[n+1:])
			if r != '_' && !unicode.IsLetter(r) {
				break
			}
			n += 1 + len(rest[n+1:]) - len(strings.TrimLeftFunc(rest[n+1:], wordRune))
		}
		return token{tWord, at, rest[:n]}, n, nil
	}
	for _, op := range operators {
		if strings.HasPrefix(rest, op) {
			return token{tOp, at, op}, len(op), nil
		}
	}
	if w := meant[rest[0]]; w != "" {
		return token{}, 0, &Error{src, at, fmt.Sprintf("%c is not an operator: write %s", rest[0], w)}
	}
	r, _ := utf8.DecodeRuneInString(rest)
	return token{}, 0, &Error{src, at, fmt.Sprintf("unexpected %q", r)}
}

func wordRune(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

// quoted reads a text up to its closing quote; a doubled quote stands for itself.
func quoted(s string) (text string, n int) {
	q := s[0]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != q:
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == q:
			b.WriteByte(q)
			i++
		default:
			return b.String(), i + 1
		}
	}
	return "", 0
}

// isPercentile tells whether a word is a p and digits.
func isPercentile(w string) bool {
	if len(w) < 2 || (w[0] != 'p' && w[0] != 'P') {
		return false
	}
	for i := 1; i < len(w); i++ {
		if (w[i] < '0' || w[i] > '9') && w[i] != '.' {
			return false
		}
	}
	return true
}
