package tokenizer

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"unicode/utf8"
	"unsafe"

	"github.com/daulet/tokenizers"

	"surprisal/internal/score"
)

// Config says how text is read.
type Config struct {
	// Special is what a literal special token in a text means; SpecialText if empty.
	Special score.SpecialMode
}

func (c Config) withDefaults() Config {
	if c.Special == "" {
		c.Special = score.SpecialText
	}
	return c
}

func (c Config) validate() error {
	if c.Special != score.SpecialText && c.Special != score.SpecialParse {
		return fmt.Errorf("special tokens mode %q is not one of text, parse", c.Special)
	}
	return nil
}

// Tokenizer encodes texts. It is safe for concurrent use.
type Tokenizer struct {
	mu     sync.RWMutex // held for reading while the library is in use
	lib    *tokenizers.Tokenizer
	inert  inert
	cut    *cutter // nil when texts can't be cut
	limits limits

	size   int
	bos    int32
	hasBOS bool
}

// Open loads a tokenizer.json. A tokenizer_config.json beside it, if there is
// one, may name the beginning token.
func Open(path string, cfg Config) (*Tokenizer, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open tokenizer %s: %w", path, err)
	}
	b, err := readBounded(path, maxDefinition)
	if err != nil {
		return nil, fmt.Errorf("open tokenizer: %w", err)
	}
	config, err := readConfigBeside(path)
	if err != nil {
		return nil, fmt.Errorf("open tokenizer %s: %w", path, err)
	}
	t, err := parse(b, config, cfg)
	if err != nil {
		return nil, fmt.Errorf("open tokenizer %s: %w", path, err)
	}
	return t, nil
}

// parse makes a tokenizer of a tokenizer.json's bytes and of a
// tokenizer_config.json's, nil if there is none.
func parse(b, config []byte, cfg Config) (*Tokenizer, error) {
	d, err := parseDefinition(b)
	if err != nil {
		return nil, err
	}
	t := &Tokenizer{size: int(d.maxID) + 1, inert: d.inert(), limits: defaultLimits(d)}
	if t.bos, t.hasBOS, err = d.beginning(config); err != nil {
		return nil, err
	}
	clean, err := d.encode()
	if err != nil {
		return nil, err
	}
	var opts []tokenizers.TokenizerOption
	if cfg.Special == score.SpecialText {
		opts = append(opts, tokenizers.WithEncodeSpecialTokens())
	}
	if t.lib, err = tokenizers.FromBytes(clean, opts...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadDefinition, err)
	}
	t.prepare(d)
	return t, nil
}

// prepare sets up the cutter. It holds what was worked out of the definition
// against what the library does with it, and does without where they differ.
func (t *Tokenizer) prepare(d *definition) {
	for b, is := range t.inert.is {
		if is && b > 0 {
			ids := t.call(nil, []byte{'a', byte(b), 'b'})
			if !slices.Contains(ids, t.inert.id[b]) {
				t.inert = inert{}
				break
			}
		}
	}
	if t.cut = newCutter(d, &t.inert); t.cut == nil {
		return
	}
	sep := t.cut.separator
	t.cut.lead = t.call(nil, []byte{sep})
	if n := len(t.cut.lead); n == 0 || n > 2 || t.cut.lead[n-1] != t.inert.id[sep] {
		t.cut = nil
	}
}

// Close gives the library's memory back. It waits for Encodes that are under way.
func (t *Tokenizer) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lib != nil {
		_ = t.lib.Close() // always nil
		t.lib = nil
	}
}

// VocabSize is the largest id that Encode can give, plus one.
func (t *Tokenizer) VocabSize() int { return t.size }

// BOS is the beginning token's id; ok is false when the tokenizer has none.
func (t *Tokenizer) BOS() (id int32, ok bool) { return t.bos, t.hasBOS }

// Encode gives text's ids, without special tokens added. Its errors wrap
// ErrNotUTF8, ErrNUL or ErrTooLong and concern this text alone.
func (t *Tokenizer) Encode(text []byte) ([]int32, error) {
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("encode %d bytes: %w", len(text), ErrNotUTF8)
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.lib == nil {
		return nil, fmt.Errorf("encode %d bytes: tokenizer is closed", len(text))
	}
	if len(text) == 0 {
		return nil, nil
	}
	ids := make([]int32, 0, len(text)/3+8)
	for at := 0; at < len(text); {
		n, fill, err := t.chunk(text, at)
		if err != nil {
			return nil, fmt.Errorf("encode %d bytes: %w", len(text), err)
		}
		if ids, err = t.encodeChunk(ids, text[at:at+n], at > 0, fill); err != nil {
			return nil, fmt.Errorf("encode %d bytes: at byte %d: %w", len(text), at, err)
		}
		at += n
	}
	return ids, nil
}

// chunk gives the length of the chunk at byte at, and what stands for its NULs:
// 0 if it has none.
func (t *Tokenizer) chunk(text []byte, at int) (n int, fill byte, err error) {
	rest := text[at:]
	n = len(rest)
	if t.cut != nil {
		n = t.cut.next(rest, t.limits.chunk)
	}
	if n > t.limits.piece {
		return 0, 0, fmt.Errorf("%w: %d bytes from byte %d cannot be split, limit is %d", ErrTooLong, n, at,
			t.limits.piece)
	}
	if bytes.IndexByte(rest[:n], 0) < 0 {
		return n, 0, nil
	}
	fill, good := t.inert.pickFill(rest[:n])
	if good < n && (good == 0 || t.cut == nil || !t.cut.allowed(rest, good)) {
		return 0, 0, fmt.Errorf("%w: from byte %d", ErrNUL, at)
	}
	return good, fill, nil
}

// encodeChunk appends a chunk's ids. later says that it is not the text's first.
func (t *Tokenizer) encodeChunk(ids []int32, chunk []byte, later bool, fill byte) ([]int32, error) {
	in := chunk
	if later || fill != 0 {
		in = make([]byte, 0, len(chunk)+1)
		if later {
			in = append(in, t.cut.separator)
		}
		in = append(in, chunk...)
	}
	if fill != 0 {
		for i, b := range in {
			if b == 0 {
				in[i] = fill
			}
		}
	}
	start := len(ids)
	ids = t.call(ids, in)
	if len(ids) == start {
		return nil, fmt.Errorf("no tokens for %d bytes", len(chunk))
	}
	if later {
		lead := len(t.cut.lead)
		if len(ids)-start < lead || !slices.Equal(ids[start:start+lead], t.cut.lead) {
			return nil, fmt.Errorf("a split text does not start with the expected tokens")
		}
		ids = slices.Delete(ids, start, start+lead)
	}
	if fill != 0 {
		from, to := t.inert.id[fill], t.inert.id[0]
		for i := start; i < len(ids); i++ {
			if ids[i] == from {
				ids[i] = to
			}
		}
	}
	return ids, nil
}

// call appends the library's ids for text, which has no NUL.
func (t *Tokenizer) call(ids []int32, text []byte) []int32 {
	// The library copies the string before it returns.
	enc := t.lib.EncodeWithOptions(unsafe.String(unsafe.SliceData(text), len(text)), false)
	ids = slices.Grow(ids, len(enc.IDs))
	for _, id := range enc.IDs {
		ids = append(ids, int32(id))
	}
	return ids
}
