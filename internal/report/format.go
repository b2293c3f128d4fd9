package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// count writes n with thousands separated.
func count(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// number writes x with about three digits.
func number(x float64) string {
	switch a := math.Abs(x); {
	case math.IsNaN(x):
		return "–"
	case a >= 1e6:
		return fmt.Sprintf("%.2e", x)
	case a >= 100:
		return count(int64(math.Round(x)))
	case a >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.3g", x)
}

// short writes a big number for a headline: 1.23 B.
func short(n int64) string {
	for _, u := range []struct {
		at   float64
		name string
	}{{1e12, " T"}, {1e9, " B"}, {1e6, " M"}} {
		if x := float64(n); x >= u.at {
			return fmt.Sprintf("%.3g%s", x/u.at, u.name)
		}
	}
	return count(n)
}

// tick writes a power of ten on an axis.
func tick(x float64) string {
	if x >= 1e4 {
		return fmt.Sprintf("10%s", superscript(int(math.Round(math.Log10(x)))))
	}
	return strconv.FormatFloat(x, 'g', 4, 64)
}

func superscript(n int) string {
	var b strings.Builder
	for _, r := range strconv.Itoa(n) {
		b.WriteRune([]rune("⁰¹²³⁴⁵⁶⁷⁸⁹")[r-'0'])
	}
	return b.String()
}

// clip shortens a text to n characters.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "�")
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}
