package shardtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// Document is a row of the files that these tests write.
type Document struct {
	ID   string  `parquet:"id"`
	Text string  `parquet:"text"`
	IDs  []int32 `parquet:"ids"` // a bare repeated field: the oldest form of a list
}

// WriteDocuments writes n documents of about size bytes into one row group.
func WriteDocuments(t testing.TB, n, size int, options ...parquet.WriterOption) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "documents.parquet")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := parquet.NewGenericWriter[Document](f, options...)
	for i := range n {
		if _, err := w.Write([]Document{DocumentAt(i, size)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

const Words = "the quick brown fox jumps over a lazy dog while seven wizards box and vex my jolly quartz sphinx "

func DocumentAt(i, size int) Document {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	var b strings.Builder
	b.Grow(size + len(Words))
	for b.Len() < size {
		k := r.IntN(len(Words) - 20)
		b.WriteString(Words[k : k+20])
	}
	return Document{ID: fmt.Sprintf("d%07d", i), Text: b.String(), IDs: []int32{int32(i), 1, 2}[:i%4]}
}
