package decode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/parquet-go/parquet-go/format"

	"surprisal/internal/testkit/shardtest"
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

			delta64, err1 := parquet.DeltaBinaryPacked.EncodeInt64(nil, ints64)
			delta32, err2 := parquet.DeltaBinaryPacked.EncodeInt32(nil, ints32)
			split64, err3 := parquet.ByteStreamSplit.EncodeInt64(nil, ints64)
			split32, err4 := parquet.ByteStreamSplit.EncodeInt32(nil, ints32)
			for _, err := range []error{err1, err2, err3, err4} {
				if err != nil {
					t.Fatal(err)
				}
			}
			check := func(kind parquet.Kind, width int, enc format.Encoding, src, want []byte) {
				t.Helper()
				var v Vector
				if err := Values(&v, kind, width, enc, src, n, nil); err != nil || !bytes.Equal(v.Data, want) {
					t.Fatalf("%d values of %d: %s of %s: %v", n, spread, enc, kind, err)
				}
			}
			check(parquet.Int64, 8, format.Plain, plain64, plain64)
			check(parquet.Int32, 4, format.Plain, plain32, plain32)
			check(parquet.Int64, 8, format.DeltaBinaryPacked, delta64, plain64)
			check(parquet.Int32, 4, format.DeltaBinaryPacked, delta32, plain32)
			check(parquet.Int64, 8, format.ByteStreamSplit, split64, plain64)
			check(parquet.Int32, 4, format.ByteStreamSplit, split32, plain32)
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
		dict := &Vector{N: int(entries), Width: 4, Data: make([]byte, 4*entries)}
		for i := range entries {
			binary.LittleEndian.PutUint32(dict.Data[4*i:], uint32(i))
		}
		var v Vector
		if err := Values(&v, parquet.Int32, 4, format.RLEDictionary, src, n, dict); err != nil {
			t.Fatalf("%d of %d: %v", n, entries, err)
		}
		for i := range idx {
			if got := int32(binary.LittleEndian.Uint32(v.At(i))); got != idx[i] {
				t.Fatalf("%d of %d: index %d: %d, want %d", n, entries, i, got, idx[i])
			}
		}
		if dict.N--; n > 0 && idxMax(idx) == entries-1 && Values(&v, parquet.Int32, 4, format.RLEDictionary, src, n,
			dict) == nil {
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
		var v Vector
		for range 2 { // the vector's memory is used again
			if err := Values(&v, parquet.ByteArray, 0, enc.Encoding(), src, n, nil); err != nil {
				t.Fatalf("%d: %s: %v", n, enc, err)
			}
			for i := range want {
				if string(v.At(i)) != want[i] {
					t.Fatalf("%d: %s: value %d: %q, want %q", n, enc, i, v.At(i), want[i])
				}
			}
		}
		for cut := range min(len(src), 200) {
			if n > 0 && Values(&v, parquet.ByteArray, 0, enc.Encoding(), src[:cut], n, nil) == nil && cut < len(src)/2 {
				t.Fatalf("%d: %s: %d bytes of %d were enough", n, enc, cut, len(src))
			}
		}
	}
}
