package tokenizer

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/testkit/long"
)

// whole is a tokenizer that never cuts: the plain variant of Encode.
func whole(tok *Tokenizer) *Tokenizer {
	return &Tokenizer{lib: tok.lib, inert: tok.inert, limits: limits{chunk: 1 << 30, piece: 1 << 30}, size: tok.size}
}

// alphabet has what texts are drawn from to find cuts that are not exact.
var alphabet = []string{" ", " ", "  ", "\n", "\t", "\x00", "\x00", "\x01", "\x02", "\x1f", "▁", "a", "e", "th", "ing",
	"the", " the", "<s>", "</s>", "<unk>", "<0x00>", "<0x01>", "<", ">", "漢", "é", "e\u0301", "👍", "\ufeff",
	"\U0010ffff", "0", "12", ".", "==", "\r\n"}

// TestCutsAreExact compares chunks of every small size with the whole.
func TestCutsAreExact(t *testing.T) {
	for name := range files {
		for _, mode := range []score.SpecialMode{score.SpecialText, score.SpecialParse} {
			t.Run(fmt.Sprint(name, " ", mode), func(t *testing.T) {
				tok := open(t, name, mode)
				if got := tok.cut != nil; got != (name != "bytelevel") {
					t.Fatalf("can cut: %v", got)
				}
				plain, r := whole(tok), rand.New(rand.NewSource(1))
				for i := range 3000 {
					var b []byte
					for range 1 + r.Intn(120) {
						b = append(b, alphabet[r.Intn(len(alphabet))]...)
					}
					tok.limits.chunk = 1 + i%40
					want, err1 := plain.Encode(b)
					got, err2 := tok.Encode(b)
					if err1 != nil || err2 != nil {
						if name == "bytelevel" && errors.Is(err2, ErrNUL) {
							continue
						}
						t.Fatalf("%q: %v, %v", b, err1, err2)
					}
					if !slices.Equal(got, want) {
						t.Fatalf("chunks of %d: %q:\n got %v\nwant %v", tok.limits.chunk, b, got, want)
					}
				}
			})
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	tok := open(t, "llama", score.SpecialText)
	for _, text := range []string{"\xff", "a\xc3", "\xed\xa0\x80", "ok\x80ok", "\xf4\x90\x80\x80", "\xc0\x80"} {
		if ids, err := tok.Encode([]byte(text)); !errors.Is(err, ErrNotUTF8) || ids != nil {
			t.Errorf("%q: %v, %v", text, ids, err)
		}
	}
	tok.limits.piece = 1000
	if _, err := tok.Encode(bytes.Repeat([]byte(" "), 1001)); !errors.Is(err, ErrTooLong) {
		t.Errorf("a stretch without a cut: %v", err)
	}
	tok.limits = limits{chunk: 100, piece: 1000}
	if _, err := tok.Encode(bytes.Repeat([]byte("cut here "), 1000)); err != nil {
		t.Errorf("a long text with cuts: %v", err)
	}
	tok.inert = inert{}
	if _, err := tok.Encode([]byte("a\x00b")); !errors.Is(err, ErrNUL) {
		t.Errorf("NUL without an inert byte: %v", err)
	}
	for _, text := range [][]byte{nil, {}} {
		if ids, err := tok.Encode(text); err != nil || len(ids) != 0 {
			t.Errorf("empty text: %v, %v", ids, err)
		}
	}
	tok.Close()
	tok.Close()
	if _, err := tok.Encode([]byte("a")); err == nil {
		t.Error("encoded with a closed tokenizer")
	}
}

func TestEncodeConcurrently(t *testing.T) {
	tok := open(t, "demo", score.SpecialText)
	texts := demoTexts(t)[:40]
	var wants [][]int32
	for _, s := range texts {
		ids, err := tok.Encode([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		wants = append(wants, ids)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range texts {
				i = (i + 5*g) % len(texts)
				if ids, err := tok.Encode([]byte(texts[i])); err != nil || !slices.Equal(ids, wants[i]) {
					t.Errorf("text %d: other ids when encoded concurrently, %v", i, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestMemoryIsGivenBack encodes much and looks at the process's memory.
func TestMemoryIsGivenBack(t *testing.T) {
	long.Skip(t, "encodes 45 MB")
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("no /proc/self/statm on this system")
	}
	tok := open(t, "llama", score.SpecialText)
	text := bytes.Repeat([]byte("The quick brown fox\x00 jumps over the lazy dog. "), 1<<20/45)
	encode := func(n int) int {
		for range n {
			if _, err := tok.Encode(text); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		debug.FreeOSMemory()
		return residentBytes(t)
	}
	before := encode(5)
	after := encode(40)
	t.Logf("resident: %d MB after 5 texts of 1 MB, %d MB after 45", before>>20, after>>20)
	if grown := after - before; grown > 64<<20 {
		t.Errorf("memory grew by %d MB over 40 texts of 1 MB", grown>>20)
	}
}

func residentBytes(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestPickFill(t *testing.T) {
	in := inert{fill: []byte{1, 2}}
	in.is[0], in.is[1], in.is[2] = true, true, true
	for _, c := range []struct {
		text string
		fill byte
		n    int
	}{
		{"a\x00", 1, 2},
		{"\x01\x00", 2, 2},
		{"\x00\x01\x02a", 2, 2},
		{"\x01\x02\x00", 0, 2},
		{"\x01\x02a", 0, 3},
		{"\x02\x00\x02\x01", 1, 3},
	} {
		if fill, n := in.pickFill([]byte(c.text)); fill != c.fill || n != c.n {
			t.Errorf("%q: fill %d, %d bytes, want %d, %d", c.text, fill, n, c.fill, c.n)
		}
	}
	if _, n := new(inert).pickFill([]byte("\x00")); n != 0 {
		t.Errorf("nothing to fill with: %d bytes", n)
	}
}
