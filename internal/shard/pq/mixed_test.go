package pq

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"slices"
	"testing"

	"surprisal/internal/shard/pq/compress"
	"surprisal/internal/testkit/shardtest"
)

// TestReadMixedCodecs reads a file whose row groups are compressed differently,
// as concatenating files without rewriting them gives.
func TestReadMixedCodecs(t *testing.T) {
	a, b := shardtest.Fixtures(t, "enc-plain-snappy-v1")[0], shardtest.Fixtures(t, "enc-plain-zstd-v1")[0]
	ra, rb := readFoot(t, a), readFoot(t, b)
	file := &spliced{first: ra.bytes, second: rb.bytes}
	foot := *ra.foot
	foot.groups = slices.Clone(ra.foot.groups)
	for _, g := range rb.foot.groups {
		g.first += shardtest.Rows
		g.chunks = append([]chunk(nil), g.chunks...)
		for i := range g.chunks {
			g.chunks[i].start += int64(len(ra.bytes))
			g.chunks[i].end += int64(len(ra.bytes))
		}
		foot.groups = append(foot.groups, g)
	}
	c := NewColumn(context.Background(), file, &foot, foot.leaves[1], 0)
	for i := range int64(2 * shardtest.Rows) {
		var got string
		if err := c.Row(func(e Entry) error { got = string(e.Val); return nil }); err != nil {
			t.Fatal(err)
		}
		if row := i % shardtest.Rows; !shardtest.Null(row) && got != shardtest.Text(row) {
			t.Fatalf("row %d: %q", i, got)
		}
	}
}

type footed struct {
	bytes []byte
	foot  *Footer
}

func readFoot(t testing.TB, path string) footed {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	foot, err := ReadFooter(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return footed{b, foot}
}

type spliced struct{ first, second []byte }

func (s *spliced) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(append(s.first[:len(s.first):len(s.first)], s.second...)).ReadAt(p, off)
}

func TestLz4Hadoop(t *testing.T) {
	// Two frames of literals: LZ4 blocks with a token of 5 literals each.
	frame := func(s string) []byte {
		b := append([]byte{byte(len(s)) << 4}, s...)
		h := binary.BigEndian.AppendUint32(nil, uint32(len(s)))
		return append(binary.BigEndian.AppendUint32(h, uint32(len(b))), b...)
	}
	dst := make([]byte, 10)
	if err := compress.Expand(compress.Lz4Hadoop, dst, append(frame("hello"), frame("world")...)); err != nil ||
		string(dst) != "helloworld" {
		t.Fatalf("%q (%v)", dst, err)
	}
	if err := compress.Expand(compress.Lz4Hadoop, dst[:5], frame("hello")[8:]); err != nil ||
		string(dst[:5]) != "hello" {
		t.Fatalf("unframed: %q (%v)", dst[:5], err)
	}
}
