package main

import (
	"math"
	"testing"

	"surprisal/internal/score"
)

func TestCompare(t *testing.T) {
	want := row{Tokens: 1000, Bytes: 4000, SumNLL: 2500, Top1: 400}
	good := score.Score{Tokens: 1000, Bytes: 4000, SumNLL: 2500.09, Top1: 402}
	for _, c := range []struct {
		name  string
		spoil func(*score.Score)
		ok    bool
	}{
		{"within both tolerances", func(*score.Score) {}, true},
		{"a token more", func(s *score.Score) { s.Tokens++ }, false},
		{"a byte less", func(s *score.Score) { s.Bytes-- }, false},
		{"too many nats", func(s *score.Score) { s.SumNLL = 2500.11 }, false},
		{"not a number", func(s *score.Score) { s.SumNLL = math.NaN() }, false},
		{"too many first choices", func(s *score.Score) { s.Top1 = 403 }, false},
		{"truncated", func(s *score.Score) { s.Truncated = true }, false},
		{"error", func(s *score.Score) { s.Error = "not UTF-8" }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := good
			c.spoil(&s)
			var worst float64
			if err := compare(s, want, &worst); (err == nil) != c.ok {
				t.Errorf("%v", err)
			}
		})
	}
}
