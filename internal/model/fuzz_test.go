package model_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/model"
	"surprisal/internal/testkit/ckptgen"
)

// pickleTests are pickles that a hostile file may hold; want is part of the error, empty for none.
var pickleTests = []struct{ name, pickle, want string }{
	{"metadata of every kind",
		"\x80\x02}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00bG\x00\x00\x00\x00\x00\x00\x00\x00" +
			"X\x01\x00\x00\x00cNX\x01\x00\x00\x00d](K\x01K\x02eu.", ""},
	{"attributes of an ordered dict", "\x80\x02ccollections\nOrderedDict\n)R}X\x09\x00\x00\x00_metadata}sb.", ""},
	{"protocol 4", "\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x03abc\x94]\x94(K\x01K\x02es.", ""},
	{"global by opcode", "\x80\x02cos\nsystem\nX\x01\x00\x00\x00x\x85R.", "os.system"},
	{"global from the stack", "\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.", "os.system"},
	{"a storage is not called", "\x80\x02ctorch\nFloatStorage\n)R.", "malformed"},
	{"4 GB string", "\x80\x02X\xff\xff\xff\xffabc.", "truncated"},
	{"8 EB string", "\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "truncated"},
	{"negative string", "\x80\x02T\xff\xff\xff\xffabc.", "truncated"},
	{"8 EB bytes", "\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc.", "truncated"},
	{"8 EB frame", "\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", ""},
	{"long long", "\x80\x02\x8b\xff\xff\xff\x7f.", "opcode 0x8b"},
	{"empty long", "\x80\x02\x8a\x00.", ""},
	{"far memo", "\x80\x02Nr\xff\xff\xff\x7fj\xff\xff\xff\x7f.", ""},
	{"empty stack", "\x80\x02}s.", "malformed"},
	{"odd items", "\x80\x02}(Nu.", "malformed"},
	{"unhashable key", "\x80\x04ccollections\nOrderedDict\n)RC\x01xNs.", "malformed"},
	{"stop at once", ".", "malformed"},
	{"no stop", "\x80\x02N", "truncated"},
	{"marks", "\x80\x02" + strings.Repeat("(", 1<<20) + "N.", "more than"},
	{"dicts", "\x80\x02" + strings.Repeat("}", 1<<20) + ".", "more than"},
	{"holds itself", "\x80\x02]q\x00h\x00a)R.", "malformed"},
	{"persistent id is a number", "\x80\x02K\x01Q.", "id is malformed"},
}

func TestPickles(t *testing.T) {
	for _, tt := range pickleTests {
		err := model.Unpickle([]byte(tt.pickle))
		if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 400) {
			t.Errorf("%s: the error is not a line: %.500s", tt.name, err)
		}
	}
}

func FuzzPickle(f *testing.F) {
	for _, tt := range pickleTests {
		if len(tt.pickle) < 4096 {
			f.Add([]byte(tt.pickle))
		}
	}
	legacy, err := os.ReadFile(filepath.Join(goldens, "loader", "legacy_tar.pth"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(legacy[137:6178]) // its object
	f.Fuzz(func(_ *testing.T, b []byte) { _ = model.Unpickle(b) })
}

// legacyTiny is cfg's checkpoint in the older stream, from its zip's pickle: the
// storages are zeros.
func legacyTiny(cfg model.Config, zipped []byte) []byte {
	var b bytes.Buffer
	b.WriteString("\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03." +
		"\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.")
	start := bytes.Index(zipped, []byte("\x80\x02}("))
	end := start + bytes.Index(zipped[start:], []byte("u.PK")) + 2
	b.Write(zipped[start:end])
	b.WriteString("\x80\x02](")
	shapes := cfg.Shapes()
	for i := range shapes {
		key := string(rune('0' + i%10))
		if i > 9 {
			key = string(rune('0'+i/10)) + key
		}
		b.Write(binary.LittleEndian.AppendUint32([]byte("X"), uint32(len(key))))
		b.WriteString(key)
	}
	b.WriteString("e.")
	for _, s := range shapes {
		b.Write(binary.LittleEndian.AppendUint64(nil, uint64(s.Len())))
		b.Write(make([]byte, 4*s.Len()))
	}
	return b.Bytes()
}

func openAll(b []byte, cfg model.Config) error {
	c, err := model.OpenBytes(b, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, s := range cfg.Shapes() {
		w, err := c.Tensor(s.Name)
		if err != nil {
			return err
		}
		if err := w.Float32(make([]float32, w.Len())); err != nil {
			return err
		}
		if err := w.BFloat16(make([]uint16, w.Len())); err != nil {
			return err
		}
		w.Float32View()
	}
	return nil
}

func tinyFiles(t testing.TB) (model.Config, [][]byte) {
	cfg := tiny()
	var b bytes.Buffer
	if err := ckptgen.Encode(&b, cfg, ckptgen.Options{DType: model.Float32}); err != nil {
		t.Fatal(err)
	}
	return cfg, [][]byte{b.Bytes(), legacyTiny(cfg, b.Bytes())}
}

// Every prefix of a file is refused, and so is a file with a byte of its
// structure changed, unless it still loads.
func TestDamagedFiles(t *testing.T) {
	cfg, files := tinyFiles(t)
	for i, b := range files {
		if err := openAll(b, cfg); err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		for n := 0; n < len(b); n += 17 {
			if err := openAll(b[:n:n], cfg); err == nil {
				t.Errorf("file %d: %d of %d bytes were enough", i, n, len(b))
			}
		}
		for n := 0; n < len(b); n += 3 {
			bad := bytes.Clone(b)
			bad[n] ^= 0xff
			_ = openAll(bad, cfg)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	cfg, files := tinyFiles(f)
	for _, b := range files {
		f.Add(b)
	}
	f.Add([]byte("<!DOCTYPE html>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := openAll(b, cfg); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("more than a line: %q", err)
		}
	})
}
