package tokenizer

import (
	"math"
	"slices"
	"unicode/utf8"
)

// cutter finds where a text may be cut. It is used only for definitions that do
// nothing but mark spaces and merge: there a merge never reaches over two
// neighbouring characters that no token of the vocabulary has side by side, so
// both sides merge as if the other were not there.
//
// Every chunk but the first is encoded behind an inert byte, so that what the
// definition puts before a text's first character stays apart; lead is what this
// adds, to be taken off again.
type cutter struct {
	pairs map[[2]rune]struct{}
	// starts and ends are first and last characters of added tokens, where text
	// is split before it is merged.
	starts, ends map[rune]struct{}
	separator    byte
	lead         []int32
}

// spaceMark is what stands for a space in vocabularies of this kind.
const spaceMark = '▁'

// newCutter gives nil when the definition does more than what is known here. Its
// lead is still to be set.
func newCutter(d *definition, in *inert) *cutter {
	if len(in.fill) == 0 || d.Model.IgnoreMerges || !d.Model.ByteFallback || !d.marksSpacesOnly() {
		return nil
	}
	used := d.usedTokens()
	for b := range 256 { // every character is a token or its bytes, never unknown
		if _, ok := d.Model.Vocab[byteToken(byte(b))]; !ok || used[byteToken(byte(b))] {
			return nil
		}
	}
	c := &cutter{
		pairs:  make(map[[2]rune]struct{}),
		starts: make(map[rune]struct{}), ends: make(map[rune]struct{}),
		separator: in.fill[0],
	}
	for s := range d.Model.Vocab {
		c.addPairs(s)
	}
	for _, a := range d.AddedTokens {
		if *a.LStrip || *a.RStrip || *a.SingleWord || *a.Normalized {
			return nil // what it matches depends on its neighbours
		}
		c.addPairs(a.Content)
		first, _ := utf8.DecodeRuneInString(a.Content)
		last, _ := utf8.DecodeLastRuneInString(a.Content)
		c.starts[marked(first)] = struct{}{}
		c.ends[marked(last)] = struct{}{}
	}
	return c
}

func marked(r rune) rune {
	if r == ' ' {
		return spaceMark
	}
	return r
}

func (c *cutter) addPairs(s string) {
	prev := rune(-1)
	for _, r := range s {
		r = marked(r)
		if prev >= 0 {
			c.pairs[[2]rune{prev, r}] = struct{}{}
		}
		prev = r
	}
}

// marksSpacesOnly reports whether the steps do no more than put a mark before a
// text and in place of its spaces.
func (d *definition) marksSpacesOnly() bool {
	const mark = string(spaceMark)
	for _, s := range d.Normalizer.all() {
		text, isRegex := s.pattern()
		replaces := s.typ() == "Replace" && !isRegex && text == " " && s.str("content") == mark
		prepends := s.typ() == "Prepend" && s.str("prepend") == mark
		if !replaces && !prepends {
			return false
		}
	}
	return !slices.ContainsFunc(d.PreTokenizer.all(), func(s step) bool {
		return s.typ() != "Metaspace" || s.str("replacement") != mark
	})
}

// allowed reports whether text may be cut at byte i, within the text.
func (c *cutter) allowed(text []byte, i int) bool {
	before, _ := utf8.DecodeLastRune(text[:i])
	after, _ := utf8.DecodeRune(text[i:])
	before, after = marked(before), marked(after)
	if _, ok := c.pairs[[2]rune{before, after}]; ok {
		return false
	}
	_, ends := c.ends[before]
	_, starts := c.starts[after]
	return !ends && !starts
}

// next gives the length of the first chunk: the first allowed cut at or after
// byte target, or else the whole text.
func (c *cutter) next(text []byte, target int) int {
	if len(text) <= target+target/2 {
		return len(text)
	}
	for i := target; i < len(text); i++ {
		if utf8.RuneStart(text[i]) && c.allowed(text, i) {
			return i
		}
	}
	return len(text)
}

// limits are sizes of what is encoded in one piece, in bytes of text.
type limits struct {
	// chunk is what is aimed at where a text can be cut.
	chunk int
	// piece is the most that is encoded where it can't: the library takes some
	// 200 bytes of memory for each byte.
	piece int
}

func defaultLimits(d *definition) limits {
	l := limits{chunk: 4 << 10, piece: 64 << 20}
	if d.hasRegex() {
		// The regular expression library gives up, and ends the process, after
		// ten million steps back in one match.
		l.piece = 4 << 20
	}
	l.piece = min(l.piece, math.MaxInt32)
	return l
}
