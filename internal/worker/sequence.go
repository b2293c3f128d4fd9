package worker

import (
	"surprisal/internal/score"
	"surprisal/internal/shard"
)

// sequence is a stretch of one document that starts from zero state: the whole
// document, or one window of it. ids[i] is an input, ids[i+1] its target.
type sequence struct {
	// first and n: the inputs are doc.ids[first : first+n].
	first, n int
	// skip inputs at the start condition only; their targets are not scored.
	skip int
}

// document is one row on its way through the pipeline.
type document struct {
	task *task
	ids  []int32
	// context of the ids, at the start, are conditioned on; 0 unless the run is
	// conditional, and one at least if it is.
	context int
	// score is filled as batches come back; Error set beforehand means that there
	// is nothing to score.
	score score.Score
	kept  shard.Kept
}

// sequences cuts a document of ids into what is scored, by the long mode (spec:
// what a score is), and appends that to seqs. True: targets were left out.
func sequences(seqs []sequence, doc *document, opt *score.Options) ([]sequence, bool) {
	targets := len(doc.ids) - 1
	if targets < 1 {
		return seqs, false
	}
	l := opt.MaxLength
	switch {
	case doc.context > 0: // cut to its length when it was read
		return append(seqs, sequence{n: targets, skip: doc.context - 1}), doc.score.Truncated
	case opt.Long == score.LongTruncate && targets > l:
		return append(seqs, sequence{n: l}), true
	case opt.Long == score.LongWindow && targets > l:
		for first := 0; first < targets; first += l {
			if n := targets - first; n < l {
				// The last window reaches back to keep its full length of inputs.
				seqs = append(seqs, sequence{first: targets - l, n: l, skip: l - n})
			} else {
				seqs = append(seqs, sequence{first: first, n: l})
			}
		}
		return seqs, false
	default:
		return append(seqs, sequence{n: targets}), false
	}
}
