package pq

import (
	"bytes"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"surprisal/internal/shard/pq/compress"
	"surprisal/internal/testkit/shardtest"
)

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
	for _, codec := range []format.CompressionCodec{format.Snappy, format.Gzip, format.Brotli, format.Zstd,
		format.Lz4Raw} {
		packed, err := parquet.LookupCompressionCodec(codec).Encode(nil, text)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{len(text), len(text) - 1, len(text) + 1, 0} {
			dst := make([]byte, n)
			err := Recovered(func() error { return compress.Expand(codec, dst, packed) })
			if (err == nil) != (n == len(text)) || (err == nil && !bytes.Equal(dst, text)) {
				t.Errorf("%s into %d of %d bytes: %v", codec, n, len(text), err)
			}
			for cut := range packed {
				if Recovered(func() error { return compress.Expand(codec, dst, packed[:cut]) }) == nil &&
					n == len(text) && cut < len(packed)-8 {
					t.Errorf("%s: %d bytes of %d were enough", codec, cut, len(packed))
				}
			}
		}
		if checkPageSize(codec, 20, 1<<31-1) == nil {
			t.Errorf("%s: 20 bytes may claim 2 GiB", codec)
		}
	}
}
