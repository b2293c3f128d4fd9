package model

import (
	"errors"
	"strings"
	"unicode"
)

// clip makes s fit for one line of an error: printable, at most n bytes.
func clip(s string, n int) string {
	cut := len(s) > n
	if cut {
		s = s[:n]
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, s)
	if cut {
		s += "..."
	}
	return s
}

// oneLine is err's text cut to a line; what it wraps is dropped, since it may
// hold arbitrarily much of a hostile file.
func oneLine(err error) error { return errors.New(clip(err.Error(), 300)) }
