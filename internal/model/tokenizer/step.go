package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// maxSteps bounds the steps of one kind, and the depth of sequences of them.
const maxSteps = 64

// stepKind is a family of steps: how a sequence lists its members, and the types
// that are known to be safe to load and to run on any text.
type stepKind struct {
	list  string
	types []string
}

var (
	normalizers = stepKind{"normalizers", []string{"Prepend", "Replace", "NFC", "NFD", "NFKC", "NFKD", "Lowercase",
		"Strip", "StripAccents"}}
	preTokenizers = stepKind{"pretokenizers", []string{"Metaspace", "ByteLevel", "Split", "Digits", "Punctuation",
		"Whitespace", "WhitespaceSplit"}}
)

// steps is a sequence of steps of one kind, flat.
type steps struct {
	kind stepKind
	list []step
}

type step map[string]any

func (s step) str(key string) string { v, _ := s[key].(string); return v }
func (s step) typ() string           { return s.str("type") }

// pattern gives a Replace's or Split's pattern.
func (s step) pattern() (text string, isRegex bool) {
	p, _ := s["pattern"].(map[string]any)
	if r, ok := p["Regex"].(string); ok {
		return r, true
	}
	text, _ = p["String"].(string)
	return text, false
}

// MarshalJSON writes a sequence in the library's form.
func (s *steps) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"type": "Sequence", s.kind.list: s.list})
}

// all lists the steps; s may be nil.
func (s *steps) all() []step {
	if s == nil {
		return nil
	}
	return s.list
}

func parseSteps(kind stepKind, raw json.RawMessage) (*steps, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	s := &steps{kind: kind}
	if err := s.add(v, 0); err != nil {
		return nil, err
	}
	if len(s.list) == 0 {
		return nil, nil
	}
	return s, nil
}

func (s *steps) add(v any, depth int) error {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("not an object")
	}
	st := step(m)
	if st.typ() == "Sequence" {
		list, ok := m[s.kind.list].([]any)
		if !ok || depth >= maxSteps {
			return fmt.Errorf("sequence without %s, or too deep", s.kind.list)
		}
		for _, e := range list {
			if err := s.add(e, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if !slices.Contains(s.kind.types, st.typ()) {
		return fmt.Errorf("type %q is not supported (Sequence, %s are)", clip(st.typ()),
			strings.Join(s.kind.types, ", "))
	}
	if len(s.list) >= maxSteps {
		return fmt.Errorf("more than %d steps", maxSteps)
	}
	// The library puts strings into error messages that can't hold a NUL.
	if err := checkStrings(m, 0); err != nil {
		return fmt.Errorf("%s: %w", st.typ(), err)
	}
	s.list = append(s.list, st)
	return nil
}

func checkStrings(v any, depth int) error {
	if depth > maxSteps {
		return fmt.Errorf("nested too deep")
	}
	switch v := v.(type) {
	case string:
		if strings.ContainsRune(v, 0) {
			return fmt.Errorf("string with a NUL")
		}
	case []any:
		for _, e := range v {
			if err := checkStrings(e, depth+1); err != nil {
				return err
			}
		}
	case map[string]any:
		for k, e := range v {
			if strings.ContainsRune(k, 0) {
				return fmt.Errorf("key with a NUL")
			}
			if err := checkStrings(e, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// hasRegex reports whether a step runs a regular expression from the file.
func (d *definition) hasRegex() bool {
	for _, s := range slices.Concat(d.Normalizer.all(), d.PreTokenizer.all()) {
		if _, isRegex := s.pattern(); isRegex {
			return true
		}
	}
	return false
}

// byteLevel reports whether bytes travel as printable characters.
func (d *definition) byteLevel() bool {
	return slices.ContainsFunc(d.PreTokenizer.all(), func(s step) bool { return s.typ() == "ByteLevel" })
}
