package tokenizer

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"
	"unicode/utf8"

	"surprisal/internal/score"
)

// FuzzEncode holds Encode to three properties: what is not UTF-8 is refused, cut
// texts have the whole text's ids, and a NUL is encoded as any other inert byte
// but for its id.
func FuzzEncode(f *testing.F) {
	var toks []*Tokenizer
	for _, name := range []string{"demo", "llama", "bytelevel"} {
		toks = append(toks, open(f, name, score.SpecialText), open(f, name, score.SpecialParse))
	}
	for _, s := range alphabet {
		f.Add([]byte(s+" "+s+s), byte(3))
	}
	f.Add([]byte("\xff"), byte(0))
	f.Add([]byte("a\x00b \x00\x01"), byte(1))
	f.Fuzz(func(t *testing.T, text []byte, chunk byte) {
		if len(text) > 1<<16 {
			return
		}
		for _, tok := range toks {
			small := whole(tok)
			small.cut, small.limits.chunk = tok.cut, int(chunk)+1
			got, err := small.Encode(text)
			if !utf8.Valid(text) {
				if !errors.Is(err, ErrNotUTF8) || got != nil {
					t.Fatalf("not UTF-8: %v, %v", got, err)
				}
				continue
			}
			if err != nil {
				if tok.cut == nil && errors.Is(err, ErrNUL) {
					continue
				}
				t.Fatal(err)
			}
			if want, err := whole(tok).Encode(text); err == nil && !slices.Equal(got, want) {
				t.Fatalf("%q in chunks of %d: %v, want %v", text, small.limits.chunk, got, want)
			}
			checkNULs(t, tok, text, got)
		}
	})
}

// checkNULs encodes text with a fill in place of its NULs.
func checkNULs(t *testing.T, tok *Tokenizer, text []byte, ids []int32) {
	for _, b := range tok.inert.fill {
		if bytes.IndexByte(text, b) >= 0 {
			continue
		}
		want, err := tok.Encode(bytes.ReplaceAll(text, []byte{0}, []byte{b}))
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range want {
			if id == tok.inert.id[b] {
				want[i] = tok.inert.id[0]
			}
		}
		if !slices.Equal(ids, want) {
			t.Fatalf("%q: ids %v, with %#02x for NUL %v", text, ids, b, want)
		}
		return
	}
}

// FuzzOpen gives a definition's bytes: any are loaded or refused, and none end
// the process, which is what a panic in the library would do.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(tiny))
	for _, step := range []string{`{"type":"Metaspace","replacement":"_","prepend_scheme":"always","split":true}`,
		`{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}`,
		`{"type":"Split","pattern":{"Regex":"\\s+"},"behavior":"Isolated","invert":false}`,
		`{"type":"Digits","individual_digits":true}`, `{"type":"Punctuation","behavior":"Isolated"}`} {
		f.Add(bytes.Replace([]byte(tiny), []byte(`"pre_tokenizer":null`), []byte(`"pre_tokenizer":`+step), 1))
	}
	for _, step := range []string{`{"type":"Prepend","prepend":"_"}`,
		`{"type":"Replace","pattern":{"String":"a"},"content":"b"}`,
		`{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Lowercase"},` +
			`{"type":"Strip","strip_left":true,"strip_right":true},{"type":"StripAccents"}]}`} {
		f.Add(bytes.Replace([]byte(tiny), []byte(`"normalizer":null`), []byte(`"normalizer":`+step), 1))
	}
	if b, err := os.ReadFile(files["bytelevel"]); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tok, err := parse(b, nil, Config{Special: score.SpecialText})
		if err != nil {
			return
		}
		defer tok.Close()
		for _, text := range []string{"", "ab ba <s> aab\x00 a", "é漢\u0301 👍\n\n 12"} {
			ids, err := tok.Encode([]byte(text))
			for _, id := range ids {
				if id < 0 || int(id) >= tok.VocabSize() {
					t.Fatalf("id %d of a vocabulary of %d (%v)", id, tok.VocabSize(), err)
				}
			}
		}
	})
}
