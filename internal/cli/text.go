package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// Count writes n with its thousands separated.
func Count[N int | int64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// OneLine is s without line breaks.
func OneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// When writes a time for people.
func When(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// PrintJSON writes v, indented.
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
