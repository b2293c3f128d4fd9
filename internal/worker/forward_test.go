package worker

import (
	"math"
	"testing"

	"surprisal/internal/score"
)

// TestNonFinite: a document is counted once, when it is complete, however many of
// its tokens have a score that is not finite, and it fails; others are not counted.
func TestNonFinite(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		nll  [][]float32 // a batch each
		want bool
	}{
		{[][]float32{{1, 2}}, false},
		{[][]float32{{1, nan}}, true},
		{[][]float32{{inf, 1}, {1, 1}}, true},
		{[][]float32{{nan, inf}, {nan}}, true},
		{[][]float32{{1}, {2}, {3}}, false},
	} {
		tk := &task{}
		d := &document{task: tk, ids: []int32{1, 2, 3, 4, 5}}
		counted := 0
		for i, nll := range c.nll {
			st := step{doc: d, n: len(nll), last: i == len(c.nll)-1}
			if st.take(nll, make([]bool, len(nll))) {
				counted++
			}
		}
		if (counted == 1) != c.want || counted > 1 || (tk.rows[0].score.Error != "") != c.want {
			t.Errorf("%v: counted %d times, error %q", c.nll, counted, tk.rows[0].score.Error)
		}
	}
	failed := step{doc: &document{task: &task{}, score: score.Score{Error: "null text"}}, last: true}
	if failed.take(nil, nil) {
		t.Error("a row without text counts as one whose score is not finite")
	}
}
