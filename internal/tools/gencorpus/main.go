// Command gencorpus writes a parquet corpus of any size for benchmarks: documents
// with lengths like FineWeb-Edu's (log-normal, median 600 tokens, mean about
// 1,050, one in 500 of 30,000) made of other corpora's sentences, in row groups of
// 1,000 rows. The same flags and inputs write the same bytes.
//
//	gencorpus --tokens 20000000 --out DIR INPUT.parquet|FOLDER...
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

const (
	bytesPerToken = 4.2 // of English
	rowsPerGroup  = 1000
	groupsPerFile = 4
)

type document struct {
	ID   string `parquet:"id"`
	Text string `parquet:"text"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gencorpus:", err)
		os.Exit(1)
	}
}

func run() error {
	tokens := flag.Int64("tokens", 20_000_000, "about so many")
	seed := flag.Uint64("seed", 1, "decides the documents")
	out := flag.String("out", "", "folder to write")
	flag.Parse()
	if *out == "" || flag.NArg() == 0 {
		return errors.New("--out DIR and at least one input are needed")
	}
	sentences, err := read(flag.Args())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o777); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(*seed, 11))
	var text strings.Builder
	row := 0
	for file, left := 0, float64(*tokens); left > 0; file++ {
		f, err := os.Create(filepath.Join(*out, fmt.Sprintf("%03d.parquet", file)))
		if err != nil {
			return err
		}
		w := parquet.NewGenericWriter[document](f, parquet.Compression(&zstd.Codec{}))
		for range groupsPerFile {
			for range rowsPerGroup {
				if left <= 0 {
					break
				}
				want := 600 * math.Exp(1.058*r.NormFloat64())
				if r.IntN(500) == 0 {
					want = 30000
				}
				left -= want
				text.Reset()
				for float64(text.Len()) < want*bytesPerToken {
					text.WriteString(sentences[r.IntN(len(sentences))])
				}
				if _, err := w.Write([]document{{fmt.Sprintf("doc-%09d", row), text.String()}}); err != nil {
					return err
				}
				row++
			}
			if err := w.Flush(); err != nil {
				return err
			}
		}
		if err := errors.Join(w.Close(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// read gives the sentences of the text columns of files and of the parquet files
// in folders.
func read(inputs []string) ([]string, error) {
	var sentences []string
	for _, in := range inputs {
		files := []string{in}
		if st, err := os.Stat(in); err == nil && st.IsDir() {
			var err error
			if files, err = filepath.Glob(filepath.Join(in, "*.parquet")); err != nil {
				return nil, err
			}
		}
		for _, name := range files {
			f, err := os.Open(name)
			if err != nil {
				return nil, err
			}
			rows := parquet.NewGenericReader[struct {
				Text string `parquet:"text"`
			}](f)
			buf := make([]struct {
				Text string `parquet:"text"`
			}, 64)
			for {
				n, err := rows.Read(buf)
				for _, d := range buf[:n] {
					sentences = append(sentences, strings.SplitAfter(d.Text, ". ")...)
				}
				if err == io.EOF {
					break
				}
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
			}
			if err := errors.Join(rows.Close(), f.Close()); err != nil {
				return nil, err
			}
		}
	}
	if len(sentences) == 0 {
		return nil, errors.New("the inputs have no text")
	}
	return sentences, nil
}
