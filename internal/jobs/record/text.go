package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrBadRecord: a bucket or stream holds something that is not a record of this
// program. It is wrapped: use errors.Is.
var ErrBad = errors.New("bad record")

const (
	recordVersion   = 1        // of every record in a bucket
	MaxError        = 2 << 10  // bytes of an error kept
	MaxJobBytes     = 16 << 10 // bytes of a job's record, by its bucket
	maxAttemptError = 512      // bytes of the error of one attempt, or of a stall
)

func decodeRecord(b []byte, v any, version func() int) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrBad, err)
	}
	if got := version(); got != recordVersion {
		return fmt.Errorf("%w: version %d, this program supports %d", ErrBad, got, recordVersion)
	}
	return nil
}

// ValidToken reports whether s can be a token of a bucket's key and of a subject.
func ValidToken(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) < 0
}

// Clean makes s fit for a record or a log line: valid UTF-8, no control
// characters, at most n bytes.
func Clean(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) <= n {
		return s
	}
	for n -= len("…"); n > 0 && !utf8.RuneStart(s[n]); n-- {
	}
	return s[:n] + "…"
}
