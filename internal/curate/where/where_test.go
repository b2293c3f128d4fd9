package where

import (
	"errors"
	"math"
	"strings"
	"testing"

	"surprisal/internal/shard/pq"
)

var kinds = map[string]pq.Kind{"x": pq.Float, "n": pq.Int, "lang": pq.Text, "ok": pq.Bool, "a b": pq.Int,
	"p60": pq.Int, "big": pq.Int, "m.x_1.y": pq.Int}

// batch has five rows; x is null in the third, everything in the last.
func batch(c *Condition) *Batch {
	nulls := []bool{false, false, false, false, true}
	xNull := []bool{false, false, true, false, true}
	all := map[string]*pq.Values{
		"x": {Kind: pq.Float, Null: xNull, Floats: []float64{1, 2.5, 0, math.NaN(), 0}},
		"n": {Kind: pq.Int, Null: nulls, Ints: []int64{-5, 0, 7, 100, 0}},
		"lang": {Kind: pq.Text, Null: nulls, Texts: [][]byte{[]byte("en"), []byte("de"), []byte(`a"b`), []byte(""),
			nil}},
		"ok":  {Kind: pq.Bool, Null: nulls, Ints: []int64{1, 0, 1, 0, 0}},
		"a b": {Kind: pq.Int, Null: nulls, Ints: []int64{1, 2, 3, 4, 0}},
		"p60": {Kind: pq.Int, Null: nulls, Ints: []int64{1, 2, 3, 4, 0}},

		"m.x_1.y": {Kind: pq.Int, Null: nulls, Ints: []int64{1, 2, 3, 4, 0}},
		"big":     {Kind: pq.Int, Null: nulls, Ints: []int64{1<<53 + 1, 1 << 53, 1<<53 - 1, 0, 0}},
	}
	b := &Batch{N: 5, Group: []int{0, 1, 0, 1, 0}}
	for _, name := range c.Columns {
		b.Columns = append(b.Columns, all[name])
	}
	for _, p := range c.Percentiles {
		b.Thresholds = append(b.Thresholds, []float64{p.P / 10, p.P/10 + 1})
	}
	return b
}

func TestConditions(t *testing.T) {
	for src, want := range map[string]string{
		"x < 2":                             "0",
		"x <= 2.5":                          "01",
		"2 > x":                             "0",
		"x != 1":                            "1",
		"x <> 1":                            "1",
		"not x == 1":                        "1",
		"x = 1 or n = 7":                    "02",
		"x is null":                         "234",
		"x is not null":                     "01",
		"not (x is null)":                   "01",
		"n between 0 and 7":                 "12",
		"n not between 0 and 7":             "03",
		"n in (0, 100)":                     "13",
		"n not in (0, 100)":                 "02",
		"n = -5":                            "0",
		"n < -4.5":                          "0",
		"n >= 1e2":                          "3",
		`lang == "en"`:                      "0",
		`lang = 'de' or lang = "a""b"`:      "12",
		`lang in ('en', '')`:                "03",
		`lang < 'b'`:                        "23",
		"ok":                                "02",
		"not ok":                            "13",
		"ok == false":                       "13",
		"m.x_1.y<p20":                       "01",
		"`a b` > 2":                         "23",
		"`p60` > 2":                         "23",
		"n < p60":                           "01",
		"n >= p60":                          "23",
		"p60 <= n":                          "23",
		"n between p0 and p70":              "2",
		"n < p99.5":                         "012",
		"x < n":                             "",
		"x > n":                             "01",
		"big > 9007199254740992":            "0",
		"big == 9007199254740993":           "0",
		"x < 2 or x is null and n > 5":      "023",
		"(x < 2 or x is null) and n > 5":    "23",
		"NOT x IS NULL AND n > -10":         "01",
		"x < 1_000":                         "01",
		"error is null":                     "no column",
		"x < 'a'":                           "can't be compared with a text",
		"lang < 3":                          "can't be compared with a number",
		"lang < p5":                         "can't be compared with a percentile",
		"ok < true":                         "can't be compared with a boolean by <",
		"x":                                 "compare it with something",
		"x <":                               "the end where a column or a value should be at character 4",
		"x < 1 y":                           "y where the expression should end",
		"x < 1 < 2":                         "chained",
		"1 < 2":                             "needs a column on one side",
		"p5 < p6":                           "needs a column on one side",
		"x < p101":                          "p0 to p100",
		"x == null":                         "x is null",
		"":                                  "an empty expression",
		"(x < 1":                            "where a ) should be",
		"lang == 'en":                       "unclosed",
		"x < 1 & n > 2":                     "write and",
		"x < 1 || n > 2":                    "write or",
		"!ok":                               "write not",
		"x # 3":                             "unexpected",
		"x between 1 or 2":                  "the and of between",
		"n in 3":                            "( of in",
		"x < 1.2.3":                         "not a number",
		"and":                               "and where a column",
		strings.Repeat("(", 300) + "x":      "nested more than",
		strings.Repeat("not ", 5000) + "ok": "more than 16384 bytes",
	} {
		got, err := pass(src)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || strings.ContainsAny(err.Error(), "\n\r") || !strings.Contains(e.Caret(), "^") {
				t.Errorf("%s: %v is no error in one line", src, err)
			}
			if !strings.Contains(err.Error(), want) || strings.Trim(want, "01234") == "" {
				t.Errorf("%s: %v, want %q", src, err, want)
			}
		} else if got != want {
			t.Errorf("%s: rows %q, want %q", src, got, want)
		}
	}
}

// pass gives the rows that pass, as digits.
func pass(src string) (string, error) {
	e, err := Parse(src)
	if err != nil {
		return "", err
	}
	c, err := e.Bind(kinds)
	if err != nil {
		return "", err
	}
	var s strings.Builder
	b := batch(c)
	ev := c.Evaluator()
	ev.Pass(b, func(int) {}) // buffers are used again
	ev.Pass(b, func(i int) { s.WriteByte(byte('0' + i)) })
	return s.String(), nil
}

// FuzzWhere: no expression makes anything panic, and not(e) passes no row that
// e passes.
func FuzzWhere(f *testing.F) {
	for _, s := range []string{"x < p60 and lang == 'en'", "n between p5 and p60.5 or not (ok)",
		"x not in (1, -2e3) and x is not null", "`a b` >= 1_0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		rows, err := pass(src)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.At > len(e.Src) {
				t.Fatalf("%q: %v", src, err)
			}
			e.Caret()
			return
		}
		if others, err := pass("not (" + src + ")"); err == nil && strings.ContainsAny(rows, "_"+others) &&
			others != "" &&
			rows != "" && strings.ContainsAny(rows, others) {
			t.Fatalf("%q passes %s and its opposite %s", src, rows, others)
		}
	})
}

// TestCaret: the mark is below the first column of the character where the error is.
func TestCaret(t *testing.T) {
	for src, want := range map[string]string{
		"x < 1 y":                "x < 1 y\n      ^",
		"x <":                    "x <\n   ^",
		"x\t<\t1 y":              "x < 1 y\n      ^",
		"x <\n1 y":               "x < 1 y\n      ^",
		"`日本` < 1 y":             "`日本` < 1 y\n           ^",
		"lang == '日本' y":         "lang == '日本' y\n               ^",
		"`e\u0301` < 1 y":        "`e\u0301` < 1 y\n        ^",
		"`n\u0303a\u0308` < 1 y": "`n\u0303a\u0308` < 1 y\n         ^",
		"lang == '👩‍🔬' y":        "lang == '👩\ufffd🔬' y\n                ^",
		"lang == '\u202e\x1b' y": "lang == '\ufffd\ufffd' y\n             ^",
		strings.Repeat("x < 1 and ", 20) + "y # 3" + strings.Repeat(" and x < 1", 20): "…" +
			strings.Repeat("x < 1 and ", 20)[153:] + "y # 3 and x < 1 and x < 1 …\n" + strings.Repeat(" ", 50) + "^",
	} {
		_, err := pass(src)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: %v", src, err)
		} else if got := e.Caret(); got != want {
			t.Errorf("%q:\n%s\nwant\n%s", src, got, want)
		}
	}
}
