package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// maxTokenizerBytes bounds a tokenizer.json.
const maxTokenizerBytes = 256 << 20

// Pieces turns token IDs into their texts. It only decodes: encoding needs the tokenizer
// library, which this program does not contain.
type Pieces struct {
	pieces map[int32]string
	strip  bool // the first piece begins with a space that the text has not
}

// ReadPieces reads a tokenizer.json.
func ReadPieces(path string) (*Pieces, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read tokenizer: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTokenizerBytes+1))
	if err == nil && len(b) > maxTokenizerBytes {
		err = fmt.Errorf("more than %d bytes", maxTokenizerBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("read tokenizer %s: %w", path, err)
	}
	p, err := parsePieces(b)
	if err != nil {
		return nil, fmt.Errorf("read tokenizer %s: %w", path, err)
	}
	return p, nil
}

func parsePieces(b []byte) (*Pieces, error) {
	var t struct {
		Model struct {
			Vocab map[string]int32 `json:"vocab"`
		} `json:"model"`
		Decoder json.RawMessage `json:"decoder"`
		Added   []struct {
			ID      int32  `json:"id"`
			Content string `json:"content"`
		} `json:"added_tokens"`
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, err
	}
	byteLevel := strings.Contains(string(t.Decoder), `"ByteLevel"`)
	p := &Pieces{pieces: make(map[int32]string, len(t.Model.Vocab)), strip: strings.Contains(string(t.Decoder),
		`"Strip"`) || strings.Contains(string(t.Decoder), `"Metaspace"`)}
	for s, id := range t.Model.Vocab {
		if byteLevel {
			p.pieces[id] = unByteLevel(s)
		} else {
			p.pieces[id] = unSentencePiece(s)
		}
	}
	for _, a := range t.Added {
		p.pieces[a.ID] = a.Content
	}
	return p, nil
}

// unByteLevel reverses GPT-2's encoding of bytes as printable characters.
func unByteLevel(s string) string {
	var b []byte
	for _, r := range s {
		switch {
		case r >= 0x100 && r <= 0x120:
			b = append(b, byte(r-0x100))
		case r >= 0x121 && r <= 0x142:
			b = append(b, byte(r-0x121+0x7f))
		case r == 0x143:
			b = append(b, 0xad)
		case r < 0x100:
			b = append(b, byte(r))
		default:
			b = append(b, string(r)...)
		}
	}
	return string(b)
}

// unSentencePiece reverses its encoding of spaces, and of bytes as <0x0A>.
func unSentencePiece(s string) string {
	if len(s) == 6 && strings.HasPrefix(s, "<0x") && s[5] == '>' {
		if v, err := strconv.ParseUint(s[3:5], 16, 8); err == nil {
			return string([]byte{byte(v)})
		}
	}
	return strings.ReplaceAll(s, "▁", " ")
}

// Token is a piece of text and how much it surprised the model.
type Token struct {
	ID    int32
	Text  string  // may be part of a character
	NLL   float64 // nats; NaN for the first token, which is only conditioned on
	Given bool    // it has no surprisal
}

// Tokens puts ids and nll [len(ids)-1] together; a nil Pieces writes ids as numbers.
func (p *Pieces) Tokens(ids []int32, nll []float32) []Token {
	out := make([]Token, 0, len(ids))
	first := true
	for i, id := range ids {
		t := Token{ID: id, Given: i == 0}
		switch {
		case p == nil:
			t.Text = strconv.Itoa(int(id)) + " "
		default:
			var ok bool
			if t.Text, ok = p.pieces[id]; !ok {
				t.Text = fmt.Sprintf("<%d>", id)
			}
		}
		if i > 0 && i-1 < len(nll) {
			t.NLL = float64(nll[i-1])
			if first && p != nil && p.strip {
				t.Text = strings.TrimPrefix(t.Text, " ")
			}
			first = false
		}
		out = append(out, t)
	}
	return Whole(out)
}

// Whole moves the bytes of characters that tokens share to the last of them, so
// that each token's text can be shown alone.
func Whole(tokens []Token) []Token {
	carry := ""
	for i := range tokens {
		s := carry + tokens[i].Text
		carry = ""
		if i+1 < len(tokens) {
			if k := incomplete(s); k > 0 {
				carry = s[len(s)-k:]
				s = s[:len(s)-k]
			}
		}
		tokens[i].Text = strings.ToValidUTF8(s, "�")
	}
	return tokens
}

// incomplete is how many bytes at the end begin a character that is not whole.
func incomplete(s string) int {
	for k := 1; k <= 3 && k <= len(s); k++ {
		b := s[len(s)-k]
		switch {
		case b&0xc0 == 0x80:
			continue
		case b&0xe0 == 0xc0 && k < 2, b&0xf0 == 0xe0 && k < 3, b&0xf8 == 0xf0 && k < 4:
			return k
		}
		return 0
	}
	return 0
}
