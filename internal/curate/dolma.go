package curate

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"surprisal/internal/shard/jsonl"
	"surprisal/internal/shard/pq"
)

// span is [start, end, score]: of the characters of a text, as Python counts them.
type span [3]any

// dolmaLine is a document's attributes, as the Dolma toolkit has them.
type dolmaLine struct {
	ID         string            `json:"id"`
	Attributes map[string][]span `json:"attributes"`
}

// dolma writes a line for each row, in order: the toolkit wants attributes to
// line up with documents. A row without a score has no spans.
func (c *Corpus) dolma(ctx context.Context, dest *destination, f *File) error {
	name := f.Input.Rel
	if !jsonl.Is(f.Input.Rel) {
		name = strings.TrimSuffix(name, ".parquet") + ".jsonl.gz"
	}
	if dest.hasLines(ctx, name) {
		return nil
	}
	return dest.WriteLines(ctx, name, func(w io.Writer) error { return c.dolmaLines(ctx, f, w) })
}

func (c *Corpus) dolmaLines(ctx context.Context, f *File, w io.Writer) error {
	names := []string{c.Manifest.Options.TextColumn, "perplexity", "bits_per_byte"}
	if _, err := c.Kinds(ctx, []string{"id"}); err == nil {
		names = append(names, "id")
	}
	prefix := "surprisal__" + attributeName(c.Manifest.Model.Name) + "__"
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return c.Scan(ctx, f, names, map[string]pq.Kind{"perplexity": pq.Float, "bits_per_byte": pq.Float},
		func(first int64, n int, v []*pq.Values) error {
			for i := range n {
				id := fmt.Sprintf("%s:%d", f.Input.Rel, first+int64(i))
				line := dolmaLine{ID: id, Attributes: map[string][]span{}}
				if len(v) > 3 && !v[3].Null[i] {
					line.ID = scalarText(v[3], i)
				}
				length := 0
				if v[0].Kind == pq.Text {
					length = utf8.RuneCount(v[0].Texts[i])
				}
				for k := 1; k <= 2; k++ {
					spans := []span{}
					if x := v[k]; !x.Null[i] && x.Kind == pq.Float && !math.IsNaN(x.Floats[i]) {
						spans = append(spans, span{0, length, min(x.Floats[i], math.MaxFloat64)})
					}
					line.Attributes[prefix+names[k]] = spans
				}
				if err := enc.Encode(line); err != nil {
					return err
				}
			}
			return nil
		})
}

// attributeName makes a model's name part of an attribute's.
func attributeName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r == '_' || (r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r))) {
			return r
		}
		return '-'
	}, s)
	if s == "" {
		return "model"
	}
	return s
}

func scalarText(v *pq.Values, i int) string {
	switch v.Kind {
	case pq.Text:
		return string(v.Texts[i])
	case pq.Float:
		return fmt.Sprint(v.Floats[i])
	}
	return fmt.Sprint(v.Ints[i])
}
