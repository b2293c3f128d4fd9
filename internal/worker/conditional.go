package worker

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"surprisal/internal/score"
	"surprisal/internal/shard"
)

// groupIDs bounds the ids of the documents that are packed together to share
// their contexts; a job of the usual size has fewer.
const groupIDs = 1 << 24

// contextIDs are a context's ids; rows that follow one another often have the
// same one.
type contextIDs struct {
	text string
	ids  []int32
}

// conditional makes a row's document of a context and a target, as
// lm-evaluation-harness's loglikelihood does: white space at the context's end
// belongs to the target, and the target's ids are those of both together past
// the number of the context's.
func (r *reading) conditional(d *document, row *shard.Row, o *score.Options, known *contextIDs) {
	switch {
	case row.NullContext:
		d.score.Error = "null context"
	case row.Null:
		d.score.Error = "null target"
	case !utf8.ValidString(row.Context):
		d.score.Error = "context is not UTF-8"
	case !utf8.ValidString(row.Text):
		d.score.Error = "target is not UTF-8"
	}
	if d.score.Error != "" {
		return
	}
	context := strings.TrimRightFunc(row.Context, isSpace)
	target := row.Context[len(context):] + row.Text
	if known.ids == nil || known.text != context {
		ids, problem := r.encode(context)
		if problem != "" {
			d.score.Error = "context: " + problem
			return
		}
		*known = contextIDs{context, ids}
	}
	whole, problem := r.encode(context + target)
	n := len(known.ids)
	switch {
	case problem != "":
		d.score.Error = problem
		return
	case context == "" && len(whole) > 1 && whole[1] == whole[0]:
		whole = whole[1:] // the target brings its own beginning token
	}
	targets := len(whole) - n
	cut := 0
	if o.Long != score.LongCarry {
		cut = max(len(whole)-1-o.MaxLength, 0)
	}
	switch {
	case targets < 1:
		d.score.Error = "the target has no tokens of its own after its context"
		return
	case cut >= n:
		d.score.Error = fmt.Sprintf("the target has %d tokens, more than the %d of --max-length", targets, o.MaxLength)
		return
	}
	d.ids, d.context = whole[cut:], n-cut
	d.score.ContextTokens, d.score.Truncated, d.score.Bytes = int64(d.context), cut > 0, int64(len(target))
}

// isSpace is Python's str.isspace.
func isSpace(c rune) bool { return unicode.IsSpace(c) || c >= 0x1c && c <= 0x1f }
