package pq

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"surprisal/internal/testkit/shardtest"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/format"
)

var sizes = []int{0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 130, 257, 1023, 1025, 4097}

// TestDecodeAgainstLibrary holds our decoders against the library's encoders.
func TestDecodeAgainstLibrary(t *testing.T) {
	for _, n := range sizes {
		for _, spread := range []int64{1, 2, 1 << 7, 1 << 20, 1 << 40, -1} {
			r := rand.New(rand.NewPCG(uint64(n), uint64(spread)))
			ints64, ints32 := make([]int64, n), make([]int32, n)
			for i := range n {
				if ints64[i] = int64(r.Uint64()); spread > 0 {
					ints64[i] = r.Int64N(spread) - spread/2
				}
				ints32[i] = int32(ints64[i])
			}
			var plain64, plain32 []byte
			for i := range n {
				plain64 = binary.LittleEndian.AppendUint64(plain64, uint64(ints64[i]))
				plain32 = binary.LittleEndian.AppendUint32(plain32, uint32(ints32[i]))
			}
			i64l, i32l := &Leaf{Kind: parquet.Int64}, &Leaf{Kind: parquet.Int32}
			delta64, err1 := parquet.DeltaBinaryPacked.EncodeInt64(nil, ints64)
			delta32, err2 := parquet.DeltaBinaryPacked.EncodeInt32(nil, ints32)
			split64, err3 := parquet.ByteStreamSplit.EncodeInt64(nil, ints64)
			split32, err4 := parquet.ByteStreamSplit.EncodeInt32(nil, ints32)
			for _, err := range []error{err1, err2, err3, err4} {
				if err != nil {
					t.Fatal(err)
				}
			}
			check := func(l *Leaf, enc format.Encoding, src, want []byte) {
				t.Helper()
				var v vector
				if err := decodeValues(&v, l, enc, src, n, nil); err != nil || !bytes.Equal(v.data, want) {
					t.Fatalf("%d values of %d: %s of %s: %v", n, spread, enc, l.Kind, err)
				}
			}
			check(i64l, format.Plain, plain64, plain64)
			check(i32l, format.Plain, plain32, plain32)
			check(i64l, format.DeltaBinaryPacked, delta64, plain64)
			check(i32l, format.DeltaBinaryPacked, delta32, plain32)
			check(i64l, format.ByteStreamSplit, split64, plain64)
			check(i32l, format.ByteStreamSplit, split32, plain32)
		}
		checkIndexes(t, n)
		checkStrings(t, n)
	}
}

func checkIndexes(t *testing.T, n int) {
	t.Helper()
	for _, entries := range []int32{1, 2, 3, 200, 70_000} {
		r := rand.New(rand.NewPCG(uint64(n), uint64(entries)))
		idx := make([]int32, n)
		for i := range idx {
			if idx[i] = r.Int32N(entries); i > 0 && r.IntN(3) > 0 {
				idx[i] = idx[i-1] // runs
			}
		}
		src, err := parquet.RLEDictionary.EncodeInt32(nil, idx)
		if err != nil {
			t.Fatal(err)
		}
		dict := &vector{n: int(entries), width: 4, data: make([]byte, 4*entries)}
		for i := range entries {
			binary.LittleEndian.PutUint32(dict.data[4*i:], uint32(i))
		}
		var v vector
		if err := decodeValues(&v, &Leaf{Kind: parquet.Int32}, format.RLEDictionary, src, n, dict); err != nil {
			t.Fatalf("%d of %d: %v", n, entries, err)
		}
		for i := range idx {
			if got := int32(binary.LittleEndian.Uint32(v.at(i))); got != idx[i] {
				t.Fatalf("%d of %d: index %d: %d, want %d", n, entries, i, got, idx[i])
			}
		}
		if dict.n--; n > 0 && idxMax(idx) == entries-1 && decodeValues(&v, &Leaf{Kind: parquet.Int32}, format.RLEDictionary, src, n, dict) == nil {
			t.Fatalf("%d of %d: an index past the dictionary was taken", n, entries)
		}
	}
}

func idxMax(s []int32) (m int32) {
	for _, x := range s {
		m = max(m, x)
	}
	return m
}

func checkStrings(t *testing.T, n int) {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(n), 0))
	var data []byte
	offsets := []uint32{0}
	var want []string
	for i := range n {
		s := fmt.Sprintf("https://example.org/%d/%s", i/10, shardtest.Words[:r.IntN(40)])
		if i%7 == 3 {
			s = ""
		}
		want = append(want, s)
		data = append(data, s...)
		offsets = append(offsets, uint32(len(data)))
	}
	for _, enc := range []encoding.Encoding{&parquet.Plain, &parquet.DeltaLengthByteArray, &parquet.DeltaByteArray} {
		src, err := enc.EncodeByteArray(nil, data, offsets)
		if err != nil {
			t.Fatal(err)
		}
		var v vector
		for range 2 { // the vector's memory is used again
			if err := decodeValues(&v, &Leaf{Kind: parquet.ByteArray}, enc.Encoding(), src, n, nil); err != nil {
				t.Fatalf("%d: %s: %v", n, enc, err)
			}
			for i := range want {
				if string(v.at(i)) != want[i] {
					t.Fatalf("%d: %s: value %d: %q, want %q", n, enc, i, v.at(i), want[i])
				}
			}
		}
		for cut := range min(len(src), 200) {
			if n > 0 && decodeValues(&v, &Leaf{Kind: parquet.ByteArray}, enc.Encoding(), src[:cut], n, nil) == nil && cut < len(src)/2 {
				t.Fatalf("%d: %s: %d bytes of %d were enough", n, enc, cut, len(src))
			}
		}
	}
}

func TestLevelsV1BitPacked(t *testing.T) {
	levels := []uint8{0, 3, 1, 2, 3, 0, 0, 1, 2}
	var packed []byte // two bits each, from the most significant
	for i, l := range levels {
		if i%4 == 0 {
			packed = append(packed, 0)
		}
		packed[i/4] |= l << (6 - 2*(i%4))
	}
	var c Column
	var buf []uint8
	got, rest, err := c.levelsV1(&buf, format.BitPacked, append(packed, 0xaa), len(levels), 3)
	if err != nil || !bytes.Equal(got, levels) || !bytes.Equal(rest, []byte{0xaa}) {
		t.Fatalf("%v, rest %v (%v)", got, rest, err)
	}
	if _, _, err := c.levelsV1(&buf, format.BitPacked, packed, len(levels), 2); err == nil {
		t.Fatal("a level past the highest was taken")
	}
}

func TestCodecBounds(t *testing.T) {
	// What does not expand to exactly what is said is an error, never more memory.
	text := []byte(shardtest.Words)
	for _, codec := range []format.CompressionCodec{format.Snappy, format.Gzip, format.Brotli, format.Zstd, format.Lz4Raw} {
		packed, err := parquet.LookupCompressionCodec(codec).Encode(nil, text)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{len(text), len(text) - 1, len(text) + 1, 0} {
			dst := make([]byte, n)
			err := Recovered(func() error { return decompress(codec, dst, packed) })
			if (err == nil) != (n == len(text)) || (err == nil && !bytes.Equal(dst, text)) {
				t.Errorf("%s into %d of %d bytes: %v", codec, n, len(text), err)
			}
			for cut := range packed {
				if Recovered(func() error { return decompress(codec, dst, packed[:cut]) }) == nil && n == len(text) && cut < len(packed)-8 {
					t.Errorf("%s: %d bytes of %d were enough", codec, cut, len(packed))
				}
			}
		}
		if checkPageSize(codec, 20, 1<<31-1) == nil {
			t.Errorf("%s: 20 bytes may claim 2 GiB", codec)
		}
	}
}
