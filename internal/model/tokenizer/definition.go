package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"unicode/utf8"
)

// maxDefinition bounds a tokenizer.json; the largest in use are some 35 MB.
const maxDefinition = 256 << 20

// maxAdded bounds the added tokens, for which the library builds an automaton
// many times their size.
const maxAdded = 4 << 20

// definition is what this package knows of a tokenizer.json. Its JSON form is
// what the library is given.
type definition struct {
	Version      string       `json:"version"`
	AddedTokens  []addedToken `json:"added_tokens"`
	Normalizer   *steps       `json:"normalizer"`
	PreTokenizer *steps       `json:"pre_tokenizer"`
	Model        bpe          `json:"model"`

	// template is the post_processor; it takes no part in encoding.
	template json.RawMessage
	// ids is the vocabulary with the added tokens.
	ids map[string]int32
	// maxID is the largest value of ids.
	maxID int32
}

type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord *bool  `json:"single_word"`
	LStrip     *bool  `json:"lstrip"`
	RStrip     *bool  `json:"rstrip"`
	Normalized *bool  `json:"normalized"`
	Special    *bool  `json:"special"`
}

// bpe is the only model type that is supported.
type bpe struct {
	Type         string           `json:"type"`
	Dropout      *float64         `json:"dropout"`
	UnkToken     *string          `json:"unk_token"`
	Prefix       *string          `json:"continuing_subword_prefix"`
	Suffix       *string          `json:"end_of_word_suffix"`
	FuseUnk      bool             `json:"fuse_unk"`
	ByteFallback bool             `json:"byte_fallback"`
	IgnoreMerges bool             `json:"ignore_merges"`
	Vocab        map[string]int64 `json:"vocab"`
	Merges       []merge          `json:"merges"`
}

type merge [2]string

// UnmarshalJSON takes both forms: ["a", "b"] and "a b".
func (m *merge) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		left, right, ok := strings.Cut(s, " ")
		if !ok || strings.Contains(right, " ") {
			return fmt.Errorf("merge %q is not two tokens", clip(s))
		}
		*m = merge{left, right}
		return nil
	}
	var pair []string
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return fmt.Errorf("merge of %d tokens, not two", len(pair))
	}
	*m = merge{pair[0], pair[1]}
	return nil
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, nil
}

// parseDefinition reads and checks a tokenizer.json. Truncation and padding in
// it are left out: a document is never cut or padded here.
func parseDefinition(b []byte) (*definition, error) {
	d, err := decodeDefinition(b)
	if err == nil {
		err = d.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadDefinition, err)
	}
	return d, nil
}

func decodeDefinition(b []byte) (*definition, error) {
	if !utf8.Valid(b) {
		return nil, ErrNotUTF8
	}
	var f struct {
		Version       *string         `json:"version"`
		AddedTokens   []addedToken    `json:"added_tokens"`
		Normalizer    json.RawMessage `json:"normalizer"`
		PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
		PostProcessor json.RawMessage `json:"post_processor"`
		Model         *bpe            `json:"model"`
	}
	// The model's type first: other models' vocabularies have other shapes.
	var m struct {
		Model struct {
			Type *string `json:"type"`
		} `json:"model"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	if t := m.Model.Type; t != nil && *t != "BPE" {
		return nil, fmt.Errorf("model type %q is not supported, only BPE", clip(*t))
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Model == nil {
		return nil, fmt.Errorf("no model")
	}
	if f.Version != nil && *f.Version != "1.0" {
		return nil, fmt.Errorf("version %q is not 1.0", clip(*f.Version))
	}
	d := &definition{Version: "1.0", AddedTokens: f.AddedTokens, Model: *f.Model, template: f.PostProcessor}
	d.Model.Type = "BPE"
	var err error
	if d.Normalizer, err = parseSteps(normalizers, f.Normalizer); err != nil {
		return nil, fmt.Errorf("normalizer: %w", err)
	}
	if d.PreTokenizer, err = parseSteps(preTokenizers, f.PreTokenizer); err != nil {
		return nil, fmt.Errorf("pre_tokenizer: %w", err)
	}
	return d, nil
}

// check holds the definition to what the library takes for granted, and refuses
// what would make ids differ from run to run.
func (d *definition) check() error {
	m := &d.Model
	if m.Dropout != nil && *m.Dropout != 0 {
		return fmt.Errorf("dropout %v would give other ids each time", *m.Dropout)
	}
	m.Dropout = nil
	if len(m.Vocab) == 0 {
		return fmt.Errorf("empty vocabulary")
	}
	d.ids = make(map[string]int32, len(m.Vocab)+len(d.AddedTokens))
	tokens := make(map[int64]string, len(m.Vocab))
	for s, id := range m.Vocab {
		if id < 0 || id >= math.MaxInt32 {
			return fmt.Errorf("token %q has id %d", clip(s), id)
		}
		if other, ok := tokens[id]; ok {
			return fmt.Errorf("tokens %q and %q have the same id, %d", clip(min(s, other)), clip(max(s, other)), id)
		}
		tokens[id] = s
		d.ids[s] = int32(id)
		d.maxID = max(d.maxID, int32(id))
	}
	if m.UnkToken != nil {
		if _, ok := m.Vocab[*m.UnkToken]; !ok {
			return fmt.Errorf("unk_token %q is not in the vocabulary", clip(*m.UnkToken))
		}
	}
	if err := m.checkMerges(); err != nil {
		return err
	}
	return d.checkAdded()
}

func (m *bpe) checkMerges() error {
	prefix := ""
	if m.Prefix != nil {
		prefix = *m.Prefix
	}
	for _, p := range m.Merges {
		right, ok := strings.CutPrefix(p[1], prefix)
		if !ok {
			return fmt.Errorf("merge of %q and %q: the second has no prefix %q", clip(p[0]), clip(p[1]), clip(prefix))
		}
		for _, s := range []string{p[0], p[1], p[0] + right} {
			if _, ok := m.Vocab[s]; !ok {
				return fmt.Errorf("merge of %q and %q: %q is not in the vocabulary", clip(p[0]), clip(p[1]), clip(s))
			}
		}
	}
	return nil
}

// checkAdded gives the added tokens their ids. The library numbers those that
// are not in the vocabulary by itself, so a definition whose ids are others
// would not mean what it says.
func (d *definition) checkAdded() error {
	size, last, total := int32(len(d.Model.Vocab)), int32(-1), 0
	seen := make(map[string]bool, len(d.AddedTokens))
	for _, a := range d.AddedTokens {
		if a.SingleWord == nil || a.LStrip == nil || a.RStrip == nil || a.Normalized == nil || a.Special == nil {
			return fmt.Errorf("added token %q lacks one of single_word, lstrip, rstrip, normalized, special",
				clip(a.Content))
		}
		if a.Content == "" || seen[a.Content] {
			return fmt.Errorf("added token %q is empty or a duplicate", clip(a.Content))
		}
		if strings.ContainsRune(a.Content, 0) {
			return fmt.Errorf("added token %q has a NUL", clip(a.Content))
		}
		seen[a.Content] = true
		if total += len(a.Content); total > maxAdded {
			return fmt.Errorf("added tokens of more than %d bytes", maxAdded)
		}
		id, ok := d.ids[a.Content]
		if !ok {
			id = size
			if last >= size {
				id = last + 1
			}
		}
		if int64(id) != a.ID {
			return fmt.Errorf("added token %q has id %d, but %d in the vocabulary", clip(a.Content), a.ID, id)
		}
		last = max(last, id)
		d.ids[a.Content] = id
		d.maxID = max(d.maxID, id)
	}
	return nil
}

// encode writes the definition for the library.
func (d *definition) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(d); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// clip shortens what a file says for an error's text.
func clip(s string) string {
	const limit = 60
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
