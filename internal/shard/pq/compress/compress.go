package compress

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

var zstdEncoders = sync.Pool{New: func() any {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(1<<20))
	if err != nil {
		panic(err) // fixed options
	}
	return e
}}

// Append appends src's compressed bytes to dst.
func Append(codec format.CompressionCodec, dst, src []byte) ([]byte, error) {
	var err error
	switch codec {
	case format.Uncompressed:
		return append(dst, src...), nil
	case format.Snappy:
		most := snappy.MaxEncodedLen(len(src))
		if most < 0 {
			return nil, fmt.Errorf("snappy: %d bytes are too many", len(src))
		}
		dst = slices.Grow(dst, most)
		n := len(dst)
		return dst[:n+len(snappy.Encode(dst[n:n+most], src))], nil
	case format.Zstd:
		e := zstdEncoders.Get().(*zstd.Encoder)
		defer zstdEncoders.Put(e)
		return e.EncodeAll(src, dst), nil
	case format.Lz4Raw:
		var z lz4.Compressor
		buf := make([]byte, lz4.CompressBlockBound(len(src)))
		n, err := z.CompressBlock(src, buf)
		return append(dst, buf[:n]...), err
	case format.Gzip, format.Brotli:
		b := bytes.NewBuffer(dst)
		var z io.WriteCloser
		if codec == format.Gzip {
			z = gzip.NewWriter(b)
		} else {
			z = brotli.NewWriterLevel(b, 5)
		}
		if _, err = z.Write(src); err == nil {
			err = z.Close()
		}
		return b.Bytes(), err
	}
	return nil, fmt.Errorf("compression codec %s can't be written", codec)
}
