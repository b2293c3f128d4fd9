package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"surprisal/internal/score"
)

// tiny is a whole definition that the cases below spoil in one place each.
const tiny = `{"version":"1.0","truncation":null,"padding":null,
"added_tokens":[{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,
"normalized":false,"special":true}],
"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,
"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
"vocab":{"<s>":0,"a":1,"b":2,"ab":3},"merges":[["a","b"]]}}`

func TestParseDefinition(t *testing.T) {
	for _, c := range []struct {
		name     string
		old, new string
		want     string // "" if it is to be accepted
	}{
		{name: "as it is"},
		{"older merges", `["a","b"]`, `"a b"`, ""},
		{"no model type", `"type":"BPE",`, ``, ""},
		{"zero dropout", `"dropout":null`, `"dropout":0.0`, ""},
		{"truncation", `"truncation":null`,
			`"truncation":{"max_length":1,"strategy":"LongestFirst","stride":0,"direction":"Right"}`, ""},
		{"padding", `"padding":null`,
			`"padding":{"strategy":{"Fixed":64},"direction":"Right","pad_to_multiple_of":8,` +
				`"pad_id":0,"pad_type_id":0,"pad_token":"<s>"}`, ""},
		{"any post-processor", `"post_processor":null`, `"post_processor":{"type":"\u0000"}`, ""},
		{"any decoder", `"decoder":null`, `"decoder":{"type":"Nonsense"}`, ""},
		{"unknown fields", `"version"`, `"more":[1,{}],"version"`, ""},
		{"dropout", `"dropout":null`, `"dropout":0.1`, "dropout"},
		{"another version", `"1.0"`, `"2.0"`, "version"},
		{"another model", `"BPE"`, `"Unigram"`, "only BPE"},
		{"NUL in a type", `"BPE"`, `"\u0000"`, "only BPE"},
		{"no vocabulary", `{"<s>":0,"a":1,"b":2,"ab":3}`, `{}`, "empty vocabulary"},
		{"vocabulary of another shape", `{"<s>":0,"a":1,"b":2,"ab":3}`, `[["a",1]]`, "cannot unmarshal"},
		{"one id twice", `"b":2`, `"b":1`, "the same id"},
		{"negative id", `"b":2`, `"b":-2`, "id -2"},
		{"huge id", `"b":2`, `"b":4294967295`, "id 4294967295"},
		{"fractional id", `"b":2`, `"b":2.5`, "cannot unmarshal"},
		{"merge of an unknown token", `["a","b"]`, `["a","c"]`, "not in the vocabulary"},
		{"merge into an unknown token", `["a","b"]`, `["b","a"]`, "not in the vocabulary"},
		{"merge of three", `["a","b"]`, `["a","b","c"]`, "3 tokens"},
		{"older merge of three", `["a","b"]`, `"a b c"`, "not two tokens"},
		{"prefix longer than a token", `"continuing_subword_prefix":null`, `"continuing_subword_prefix":"####"`,
			"no prefix"},
		{"unknown unk", `"unk_token":null`, `"unk_token":"?"`, "unk_token"},
		{"added token's id", `"id":0`, `"id":7`, "has id 7"},
		{"added token without a field", `"lstrip":false,`, ``, "lacks one of"},
		{"empty added token", `"content":"<s>"`, `"content":""`, "empty"},
		{"added token with a NUL", `"content":"<s>"`, `"content":"\u0000"`, "NUL"},
		{"unknown normalizer", `"normalizer":null`, `"normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"}`,
			"not supported"},
		{"NUL in a pattern", `"normalizer":null`,
			`"normalizer":{"type":"Replace","pattern":{"Regex":"(\u0000"},"content":""}`, "NUL"},
		{"pattern that is no regular expression", `"normalizer":null`,
			`"normalizer":{"type":"Replace","pattern":{"Regex":"("},"content":""}`, "bad tokenizer definition"},
		{"normalizer without its fields", `"normalizer":null`, `"normalizer":{"type":"Prepend"}`,
			"bad tokenizer definition"},
		{"normalizer that is a number", `"normalizer":null`, `"normalizer":7`, "not an object"},
		{"sequence without its list", `"pre_tokenizer":null`, `"pre_tokenizer":{"type":"Sequence"}`, "sequence"},
		{"deep sequences", `"pre_tokenizer":null`,
			`"pre_tokenizer":` + strings.Repeat(`{"type":"Sequence","pretokenizers":[`, 200) +
				strings.Repeat(`]}`, 200), "too deep"},
		{"many steps", `"pre_tokenizer":null`, `"pre_tokenizer":{"type":"Sequence","pretokenizers":[` +
			strings.Repeat(`{"type":"Whitespace"},`, 100) + `{"type":"Whitespace"}]}`, "more than 64"},
		{"metaspace of two characters", `"pre_tokenizer":null`,
			`"pre_tokenizer":{"type":"Metaspace","replacement":"xx","prepend_scheme":"first","split":false}`,
			"bad tokenizer definition"},
		{"not an object", tiny, `[]`, "cannot unmarshal"},
		{"null", tiny, `null`, "no model"},
		{"empty", tiny, ``, "unexpected end"},
		{"half", tiny, tiny[:200], "unexpected end"},
		{"not UTF-8", `"a":1`, "\"\xff\":1", "not UTF-8"},
		{"deep JSON", tiny, strings.Repeat("[", 1<<20), "depth"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := strings.Replace(tiny, c.old, c.new, 1)
			if c.old != "" && b == tiny {
				t.Fatal("the case changes nothing")
			}
			tok, err := parse([]byte(b), nil, Config{Special: score.SpecialText})
			if tok != nil {
				defer tok.Close()
			}
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want == "":
				if ids, err := tok.Encode([]byte("abba")); err != nil || !slices.Equal(ids, []int32{3, 2, 1}) {
					t.Errorf("ids %v, %v", ids, err)
				}
			case err == nil || !errors.Is(err, ErrBadDefinition) || !strings.Contains(err.Error(), c.want):
				t.Errorf("error %v, want %q in it", err, c.want)
			case strings.Contains(err.Error(), "\n") || len(err.Error()) > 400:
				t.Errorf("error is not one short line: %q", err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "none.json"), Config{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open(dir, Config{}); err == nil {
		t.Error("opened a folder")
	}
	if _, err := Open(files["demo"], Config{Special: "other"}); err == nil {
		t.Error("opened with an unknown mode")
	}
	big := filepath.Join(dir, "big.json")
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, maxDefinition+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(big, Config{}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a file past the bound: %v", err)
	}
}

func TestBeginning(t *testing.T) {
	added := func(id int, content string) string {
		return fmt.Sprintf(`{"id":%d,"content":%q,"single_word":false,"lstrip":false,"rstrip":false,`+
			`"normalized":false,"special":true}`, id, content)
	}
	template := `{"type":"TemplateProcessing","single":[` +
		`{"SpecialToken":{"id":"<go>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}]}`
	for _, c := range []struct {
		name, added, post, config string
		want                      int32 // -1: none
		err                       string
	}{
		{"well-known", added(4, "<bos>"), `null`, ``, 4, ""},
		{"none", added(4, "<other>"), `null`, ``, -1, ""},
		{"template", added(4, "<go>") + "," + added(5, "<s>"), template, ``, 4, ""},
		{"template in a sequence", added(4, "<go>") + "," + added(5, "<s>"),
			`{"type":"Sequence","processors":[{"type":"ByteLevel"},` + template + `]}`, ``, 4, ""},
		{"template that begins with the text", added(4, "</s>"),
			`{"type":"TemplateProcessing","single":[` +
				`{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"</s>","type_id":0}}]}`, ``, -1, ""},
		{"config", added(4, "<go>") + "," + added(5, "<s>"), template, `{"bos_token":"<s>"}`, 5, ""},
		{"config's object", added(4, "<go>") + "," + added(5, "<s>"), template,
			`{"bos_token":{"content":"<s>","lstrip":false}}`, 5, ""},
		{"config without one", added(4, "<go>"), template, `{"bos_token":null}`, 4, ""},
		{"config with a word", added(4, "<go>"), `null`, `{"bos_token":"ab"}`, 3, ""},
		{"config with an unknown token", added(4, "<go>"), template, `{"bos_token":"?"}`, 0, "not in the vocabulary"},
		{"config of another shape", added(4, "<go>"), template, `{"bos_token":7}`, 0, "bos_token"},
		{"config that is broken", added(4, "<go>"), template, `{`, 0, configName},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := strings.Replace(tiny, `"<s>":0`, `"x":0`, 1)
			i, j := strings.Index(b, `[{"id":0`), strings.Index(b, "],\n\"normalizer\"")
			b = b[:i+1] + c.added + b[j:]
			b = strings.Replace(b, `"post_processor":null`, `"post_processor":`+c.post, 1)
			path := filepath.Join(t.TempDir(), "tokenizer.json")
			if err := os.WriteFile(path, []byte(b), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.config != "" {
				if err := os.WriteFile(filepath.Join(filepath.Dir(path), configName), []byte(c.config),
					0o600); err != nil {
					t.Fatal(err)
				}
			}
			tok, err := Open(path, Config{})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q in it", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer tok.Close()
			id, ok := tok.BOS()
			if ok != (c.want >= 0) || ok && id != c.want {
				t.Errorf("beginning token %d, %v, want %d", id, ok, c.want)
			}
		})
	}
	for name, want := range map[string]int32{"demo": 1, "llama": 1, "bytelevel": 1} {
		tok := open(t, name, score.SpecialText)
		if id, ok := tok.BOS(); !ok || id != want {
			t.Errorf("%s: beginning token %d, %v", name, id, ok)
		}
	}
	for name, want := range map[string]int{"demo": 4096, "llama": 32000, "bytelevel": 600} {
		if got := open(t, name, score.SpecialText).VocabSize(); got != want {
			t.Errorf("%s: vocabulary of %d, want %d", name, got, want)
		}
	}
}

// TestTruncationIsIgnored spoils a real definition in the way that a library's
// save does after a truncated or padded batch.
func TestTruncationIsIgnored(t *testing.T) {
	b, err := os.ReadFile(files["demo"])
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	m["truncation"] = json.RawMessage(`{"direction":"Right","max_length":8,"strategy":"LongestFirst","stride":0}`)
	m["padding"] = json.RawMessage(`{"strategy":{"Fixed":512},"direction":"Right","pad_to_multiple_of":null,` +
		`"pad_id":0,"pad_type_id":0,"pad_token":"<unk>"}`)
	if b, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	tok, err := parse(b, nil, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	plain := open(t, "demo", score.SpecialText)
	for _, text := range []string{"short", strings.Repeat("a longer text ", 100)} {
		got, err1 := tok.Encode([]byte(text))
		want, err2 := plain.Encode([]byte(text))
		if err1 != nil || err2 != nil || !slices.Equal(got, want) {
			t.Errorf("%.20q: %d ids, want %d (%v, %v)", text, len(got), len(want), err1, err2)
		}
	}
}
