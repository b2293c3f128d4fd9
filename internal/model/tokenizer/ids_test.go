package tokenizer

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/testkit/long"
)

// The tokenizers that the tests know, as testdata/make_ids.py does.
var files = map[string]string{
	"demo":      "../../../examples/demo/model/tokenizer.json",
	"llama":     "../../../testdata/tokenizer/tokenizer.json",
	"bytelevel": "testdata/bytelevel.json",
}

func open(t testing.TB, name string, mode score.SpecialMode) *Tokenizer {
	t.Helper()
	tok, err := Open(files[name], Config{Special: mode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tok.Close)
	return tok
}

// want is what the Hugging Face library gave: ids, or their number and digest.
type want struct {
	ids    []int32
	n      int
	digest string
}

func (w *want) UnmarshalJSON(b []byte) error {
	if b[0] == '[' {
		err := json.Unmarshal(b, &w.ids)
		w.n = len(w.ids)
		return err
	}
	var v struct {
		N      int    `json:"n"`
		SHA256 string `json:"sha256"`
	}
	err := json.Unmarshal(b, &v)
	w.n, w.digest = v.N, v.SHA256
	return err
}

func (w *want) check(got []int32) error {
	if len(got) != w.n {
		return fmt.Errorf("%d ids %v, want %d %v", len(got), clipIDs(got), w.n, clipIDs(w.ids))
	}
	if w.digest != "" {
		if d := digest(got); d != w.digest {
			return fmt.Errorf("ids' digest is %s, want %s", d, w.digest)
		}
		return nil
	}
	if !slices.Equal(got, w.ids) {
		return fmt.Errorf("ids %v, want %v", clipIDs(got), clipIDs(w.ids))
	}
	return nil
}

func clipIDs(ids []int32) []int32 { return ids[:min(len(ids), 40)] }

func digest(ids []int32) string {
	b := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

type idsCase struct {
	Name  string            `json:"name"`
	Parts []json.RawMessage `json:"parts"`
	Huge  bool              `json:"huge"`
}

func (c *idsCase) text(t testing.TB) []byte {
	var b []byte
	for _, raw := range c.Parts {
		var s string
		var n int
		if err := json.Unmarshal(raw, &[]any{&s, &n}); err != nil {
			t.Fatal(err)
		}
		if s == "letters" {
			b = append(b, letters(n)...)
		} else {
			b = append(b, strings.Repeat(s, n)...)
		}
	}
	return b
}

// letters are make_ids.py's pseudo-random letters.
func letters(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte('a' + (x>>16)%26)
	}
	return b
}

func demoTexts(t testing.TB) []string {
	t.Helper()
	f, err := os.Open("testdata/demo_texts.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	if err := json.NewDecoder(z).Decode(&texts); err != nil {
		t.Fatal(err)
	}
	return texts
}

// mayRefuse lists the tokenizers that can't encode every text with NULs.
func mayRefuse(name string, text []byte, err error) bool {
	return name == "bytelevel" && strings.ContainsRune(string(text), 0) && err != nil
}

func TestIDs(t *testing.T) {
	b, err := os.ReadFile("testdata/ids.json")
	if err != nil {
		t.Fatal(err)
	}
	var table struct {
		Cases []idsCase `json:"cases"`
		IDs   map[string]struct {
			Cases []*want `json:"cases"`
			Demo  []*want `json:"demo"`
		} `json:"ids"`
	}
	if err := json.Unmarshal(b, &table); err != nil {
		t.Fatal(err)
	}
	demo := demoTexts(t)
	if len(table.IDs) != 2*len(files) || len(demo) < 200 {
		t.Fatalf("table has %d tokenizers and %d demo texts", len(table.IDs), len(demo))
	}
	for key, ids := range table.IDs {
		name, mode, _ := strings.Cut(key, " ")
		t.Run(key, func(t *testing.T) {
			tok := open(t, name, score.SpecialMode(mode))
			for i, w := range ids.Cases {
				c := &table.Cases[i]
				if w == nil || c.Huge && !long.Wanted && (testing.Short() || key != "llama text") {
					continue
				}
				text := c.text(t)
				got, err := tok.Encode(text)
				if mayRefuse(name, text, err) {
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", c.Name, err)
				} else if err := w.check(got); err != nil {
					t.Errorf("%s: %.80q: %v", c.Name, text, err)
				}
			}
			for i, w := range ids.Demo {
				got, err := tok.Encode([]byte(demo[i]))
				if err != nil {
					t.Errorf("demo text %d: %v", i, err)
				} else if err := w.check(got); err != nil {
					t.Errorf("demo text %d: %v", i, err)
				}
			}
		})
	}
}
