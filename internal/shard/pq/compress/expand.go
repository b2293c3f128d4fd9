package compress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
	"github.com/pierrec/lz4/v4"
)

// MaxRatio is the most that a codec can expand by, so that a page of a few
// bytes can't make us allocate what it claims. Zstandard's and brotli's own
// bounds are far higher; this is past anything seen in a page of 64 KiB or more.
var MaxRatio = map[format.CompressionCodec]int64{
	format.Uncompressed: 1,
	format.Snappy:       64,
	format.Gzip:         1100,
	format.Lz4Raw:       300,
	Lz4Hadoop:           300,
	format.Zstd:         1 << 16,
	format.Brotli:       1 << 16,
}

// Lz4Hadoop is the deprecated LZ4: raw blocks in Hadoop's framing.
const Lz4Hadoop format.CompressionCodec = 5

var (
	zstdPool = sync.Pool{New: func() any {
		// The cap of the destination limits what a frame may expand to.
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(512<<20))
		if err != nil {
			panic(err) // fixed options
		}
		return d
	}}
	gzipPool   = sync.Pool{New: func() any { return new(gzip.Reader) }}
	brotliPool = sync.Pool{New: func() any { return new(brotli.Reader) }}
)

// Expand fills dst, whose length is the size that src must expand to.
func Expand(codec format.CompressionCodec, dst, src []byte) error {
	switch codec {
	case format.Uncompressed:
		if len(src) != len(dst) {
			return fmt.Errorf("%d bytes, not the %d of its header", len(src), len(dst))
		}
		copy(dst, src)
		return nil
	case format.Snappy:
		if n, err := snappy.DecodedLen(src); err != nil || n != len(dst) {
			return fmt.Errorf("snappy: %d bytes, not the %d of its header (%v)", n, len(dst), err)
		}
		_, err := snappy.Decode(dst, src)
		return err
	case format.Gzip:
		z := gzipPool.Get().(*gzip.Reader)
		defer gzipPool.Put(z)
		if err := z.Reset(bytes.NewReader(src)); err != nil {
			return err
		}
		return readExactly(z, dst)
	case format.Brotli:
		z := brotliPool.Get().(*brotli.Reader)
		defer brotliPool.Put(z)
		if err := z.Reset(bytes.NewReader(src)); err != nil {
			return err
		}
		return readExactly(z, dst)
	case format.Zstd:
		z := zstdPool.Get().(*zstd.Decoder)
		defer zstdPool.Put(z)
		out, err := z.DecodeAll(src, dst[:0])
		if err == nil && len(out) != len(dst) {
			err = fmt.Errorf("zstd: %d bytes, not the %d of its header", len(out), len(dst))
		}
		return err
	case format.Lz4Raw:
		return lz4Block(dst, src)
	case Lz4Hadoop:
		if lz4Hadoop(dst, src) == nil {
			return nil
		}
		return lz4Block(dst, src) // some writers leave the framing out
	}
	return fmt.Errorf("compression codec %s is not supported", codec)
}

func readExactly(r io.Reader, dst []byte) error {
	if _, err := io.ReadFull(r, dst); err != nil {
		return err
	}
	var more [1]byte
	if n, err := io.ReadFull(r, more[:]); n != 0 {
		return fmt.Errorf("more than the %d bytes of its header", len(dst))
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func lz4Block(dst, src []byte) error {
	n, err := lz4.UncompressBlock(src, dst)
	if err == nil && n != len(dst) {
		err = fmt.Errorf("lz4: %d bytes, not the %d of its header", n, len(dst))
	}
	return err
}

func lz4Hadoop(dst, src []byte) error {
	for len(src) >= 8 {
		raw, packed := int64(binary.BigEndian.Uint32(src)), int64(binary.BigEndian.Uint32(src[4:]))
		src = src[8:]
		if raw > int64(len(dst)) || packed > int64(len(src)) {
			return errors.New("lz4: bad frame")
		}
		if err := lz4Block(dst[:raw], src[:packed]); err != nil {
			return err
		}
		dst, src = dst[raw:], src[packed:]
	}
	if len(dst)+len(src) != 0 {
		return errors.New("lz4: bad frame")
	}
	return nil
}
