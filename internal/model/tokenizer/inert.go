package tokenizer

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// inert lists the control bytes, NUL among them, that are always one token by
// themselves, and their ids. A NUL may be replaced by any other of them that a
// text does not have: every step treats them alike, no merge takes them, and
// nothing else gives their ids.
type inert struct {
	is [32]bool
	id [32]int32
	// fill are the inert bytes that may stand for a NUL.
	fill []byte
}

// byteToken is what byte fallback calls a byte.
func byteToken(b byte) string { return fmt.Sprintf("<0x%02X>", b) }

func (d *definition) inert() inert {
	var in inert
	m := &d.Model
	if m.Prefix != nil && *m.Prefix != "" || m.Suffix != nil && *m.Suffix != "" {
		return in // a character's token depends on its place
	}
	last := byte(0x1f)
	if d.hasRegex() {
		// Up to 0x08 a pattern can tell from NUL only by an escape or a literal.
		last = 0x08
	}
	for _, s := range slices.Concat(d.Normalizer.all(), d.PreTokenizer.all()) {
		if !s.plain() {
			return in
		}
	}
	used := d.usedTokens()
	inWords := d.controlsInWords()
	for b := byte(0); b <= last; b++ {
		if '\t' <= b && b <= '\r' {
			continue // white space, which steps treat apart
		}
		symbol := string(rune(b))
		if d.byteLevel() {
			symbol = string(rune(0x100 + int(b)))
		}
		id, ok := m.Vocab[symbol]
		token := symbol
		if !ok && m.ByteFallback {
			token = byteToken(b)
			id, ok = m.Vocab[token]
		}
		if !ok || inWords[b] || used[token] {
			continue
		}
		in.is[b], in.id[b] = true, int32(id)
		if b > 0 {
			in.fill = append(in.fill, b)
		}
	}
	if !in.is[0] {
		in.fill = nil
	}
	return in
}

// plain reports whether the step treats all control bytes alike.
func (s step) plain() bool {
	text, isRegex := s.pattern()
	if isRegex {
		for i := 0; i < len(text); i++ {
			if text[i] != '\\' {
				continue
			}
			// \x, \u, \0 and their like can name single control characters.
			if i++; i == len(text) || strings.IndexByte("sSwWdDpPnrtbB.*+?()[]{}|^$/-'\"\\", text[i]) < 0 {
				return false
			}
		}
	}
	for _, t := range []string{text, s.str("content"), s.str("prepend"), s.str("replacement")} {
		if strings.ContainsFunc(t, func(r rune) bool { return r < 0x20 && (r < '\t' || r > '\r') }) {
			return false
		}
	}
	return true
}

// usedTokens are the tokens that something other than their own bytes can give.
func (d *definition) usedTokens() map[string]bool {
	used := make(map[string]bool, 2*len(d.Model.Merges))
	for _, p := range d.Model.Merges {
		used[p[0]], used[p[1]], used[p[0]+p[1]] = true, true, true
	}
	for _, a := range d.AddedTokens {
		used[a.Content] = true
	}
	if d.Model.UnkToken != nil {
		used[*d.Model.UnkToken] = true
	}
	return used
}

// controlsInWords marks the control bytes that are part of a longer token.
func (d *definition) controlsInWords() (in [32]bool) {
	first := rune(0)
	if d.byteLevel() {
		first = 0x100
	}
	mark := func(s string, from rune) {
		for _, r := range s {
			if r >= from && r < from+32 {
				in[r-from] = true
			}
		}
	}
	for s := range d.Model.Vocab {
		if len(s) > 1 && len([]rune(s)) > 1 {
			mark(s, first)
		}
	}
	for _, a := range d.AddedTokens {
		mark(a.Content, 0)
	}
	return in
}

// pickFill chooses what stands for the NULs of text. n is how much of the text
// that is good for: all of it, or as far as one of the fills is still unused. n
// is 0 when the tokenizer can't encode a NUL; fill is 0 when text[:n] has none.
func (in *inert) pickFill(text []byte) (fill byte, n int) {
	if len(in.fill) == 0 {
		return 0, 0
	}
	var seen [32]bool
	left, nul := len(in.fill), -1
	for i, b := range text {
		if b == 0 && nul < 0 {
			nul = i
		}
		if b == 0 || b >= 32 || !in.is[b] || seen[b] {
			continue
		}
		if left == 1 { // b is the last fill
			if nul >= 0 {
				return in.free(&seen), i
			}
			return 0, nulOrEnd(text, i) // it has no NUL as far as that
		}
		seen[b] = true
		left--
	}
	return in.free(&seen), len(text)
}

func nulOrEnd(text []byte, from int) int {
	if i := bytes.IndexByte(text[from:], 0); i >= 0 {
		return from + i
	}
	return len(text)
}

func (in *inert) free(seen *[32]bool) byte {
	for _, b := range in.fill {
		if !seen[b] {
			return b
		}
	}
	return 0
}
