package pq

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/parquet-go/parquet-go/format"

	"surprisal/internal/shard/pq/compact"
	"surprisal/internal/shard/pq/compress"
	"surprisal/internal/shard/pq/decode"
)

// maxPageValues bounds what a page's header may claim to hold; runs can stand
// for any number of values in a few bytes.
const maxPageValues = 1 << 26

// maxHeaderBytes bounds a page's header, which may carry whole values as its
// statistics.
const maxHeaderBytes = 16 << 20

const (
	pageData       = 0
	pageIndex      = 1
	pageDictionary = 2
	pageDataV2     = 3
)

// pageHeader is a page's header, checked.
type pageHeader struct {
	typ                      int32
	compressed, uncompressed int32
	crc                      uint32
	hasCRC                   bool
	values                   int32
	rows                     int32 // v2 only
	nulls                    int32 // v2 only, else -1
	enc                      format.Encoding
	defEnc, repEnc           format.Encoding // v1 only
	defBytes, repBytes       int32           // v2 only
	plainData                bool            // v2: the values are not compressed
	seen                     bool            // the sub-header that typ asks for is there
}

func parsePageHeader(b []byte) (h pageHeader, n int, err error) {
	h.typ, h.nulls = -1, -1
	r := &compact.Reader{B: b}
	r.Struct(func(id int16, typ byte) bool {
		switch id {
		case 1:
			h.typ = r.I32(typ)
		case 2:
			h.uncompressed = r.I32(typ)
		case 3:
			h.compressed = r.I32(typ)
		case 4:
			h.crc, h.hasCRC = uint32(r.I32(typ)), true
		case 5:
			return h.part(r, typ, pageData, h.parseData)
		case 7:
			return h.part(r, typ, pageDictionary, h.parseDictionary)
		case 8:
			return h.part(r, typ, pageDataV2, h.parseDataV2)
		default:
			return false
		}
		return true
	})
	return h, r.At, r.Err
}

// part reads the header of one type of page.
func (h *pageHeader) part(r *compact.Reader, typ byte, of int32, field func(*compact.Reader, int16, byte) bool) bool {
	if typ != compact.Struct {
		return false
	}
	h.seen = h.seen || h.typ == of
	r.Struct(func(id int16, typ byte) bool { return field(r, id, typ) })
	return true
}

func (h *pageHeader) parseData(r *compact.Reader, id int16, typ byte) bool {
	switch id {
	case 1:
		h.values = r.I32(typ)
	case 2:
		h.enc = format.Encoding(r.I32(typ))
	case 3:
		h.defEnc = format.Encoding(r.I32(typ))
	case 4:
		h.repEnc = format.Encoding(r.I32(typ))
	default:
		return false
	}
	return true
}

func (h *pageHeader) parseDictionary(r *compact.Reader, id int16, typ byte) bool {
	switch id {
	case 1:
		h.values = r.I32(typ)
	case 2:
		h.enc = format.Encoding(r.I32(typ))
	default:
		return false
	}
	return true
}

func (h *pageHeader) parseDataV2(r *compact.Reader, id int16, typ byte) bool {
	switch id {
	case 1:
		h.values = r.I32(typ)
	case 2:
		h.nulls = r.I32(typ)
	case 3:
		h.rows = r.I32(typ)
	case 4:
		h.enc = format.Encoding(r.I32(typ))
	case 5:
		h.defBytes = r.I32(typ)
	case 6:
		h.repBytes = r.I32(typ)
	case 7:
		h.plainData = typ == compact.False
	default:
		return false
	}
	return true
}

// window reads a byte range of a file through a small buffer, so that tiny
// pages cost one read for many and large ones are not read twice.
type window struct {
	r   io.ReaderAt
	end int64 // nothing is read at or past it
	off int64 // of buf
	buf []byte
	// least is read at once; windowBytes when 0.
	least int
}

const windowBytes = 16 << 10

// view gives up to n bytes at off, fewer at the range's end.
func (w *window) view(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), w.end-off))
	if n <= 0 {
		return nil, nil
	}
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		least := w.least
		if least == 0 {
			least = windowBytes
		}
		size := int(min(int64(max(n, least)), w.end-off))
		if cap(w.buf) < size {
			w.buf = make([]byte, size)
		}
		w.buf = w.buf[:size]
		w.off = off
		if err := ReadFull(w.r, w.buf, off); err != nil {
			w.buf = w.buf[:0]
			return nil, err
		}
	}
	return w.buf[off-w.off:][:n], nil
}

// read fills dst from off.
func (w *window) read(dst []byte, off int64) error {
	if off < 0 || int64(len(dst)) > w.end-off {
		return Corruptf("a page of %d bytes at %d reaches past its column chunk", len(dst), off)
	}
	if off >= w.off && off < w.off+int64(len(w.buf)) {
		n := copy(dst, w.buf[off-w.off:])
		dst, off = dst[n:], off+int64(n)
	}
	if len(dst) == 0 {
		return nil
	}
	return ReadFull(w.r, dst, off)
}

// header reads the page header at off and checks its numbers.
func (w *window) header(off int64, codec format.CompressionCodec) (pageHeader, int64, error) {
	for n := 256; ; n *= 8 {
		b, err := w.view(off, n)
		if err != nil {
			return pageHeader{}, 0, err
		}
		h, used, err := parsePageHeader(b)
		if errors.Is(err, compact.ErrShort) && len(b) == n && n < maxHeaderBytes {
			continue // the header is longer
		}
		if err != nil {
			return h, 0, Corruptf("page header at %d: %w", off, err)
		}
		if err := h.check(codec, w.end-off-int64(used)); err != nil {
			return h, 0, fmt.Errorf("page header at %d: %w", off, err)
		}
		return h, off + int64(used), nil
	}
}

func (h *pageHeader) check(codec format.CompressionCodec, left int64) error {
	if int64(h.compressed) > left {
		return Corruptf("a page of %d bytes where %d are left", h.compressed, left)
	}
	if h.typ == pageIndex {
		if h.compressed < 0 {
			return Corruptf("negative size")
		}
		return nil
	}
	if !h.seen {
		return Corruptf("page type %d without its header", h.typ)
	}
	if h.typ == pageDataV2 {
		if h.repBytes < 0 || h.defBytes < 0 || int64(h.repBytes)+int64(h.defBytes) > int64(min(h.compressed,
			h.uncompressed)) {
			return Corruptf("levels of %d and %d bytes in a page of %d", h.repBytes, h.defBytes, h.compressed)
		}
		if h.rows < 0 || h.rows > h.values {
			return Corruptf("%d rows of %d values", h.rows, h.values)
		}
		if h.nulls > h.values {
			h.nulls = -1 // it helps readers only
		}
		if h.plainData {
			codec = format.Uncompressed
		}
	}
	if h.values < 0 || h.values > maxPageValues {
		return Corruptf("%d values in a page", h.values)
	}
	return checkPageSize(codec, int64(h.compressed), int64(h.uncompressed))
}

// checkCRC compares a page's bytes with the checksum in its header, if any.
func (h *pageHeader) checkCRC(b []byte) error {
	if h.hasCRC && crc32.ChecksumIEEE(b) != h.crc {
		return Corruptf("checksum mismatch")
	}
	return nil
}

// checkPageSize reports whether the sizes that a page's header claims can be.
func checkPageSize(codec format.CompressionCodec, compressed, uncompressed int64) error {
	ratio, ok := compress.MaxRatio[codec]
	if !ok {
		return Corruptf("compression codec %s is not supported", codec)
	}
	if compressed < 0 || uncompressed < 0 || compressed > decode.MaxBytes || uncompressed > decode.MaxBytes ||
		uncompressed > ratio*(compressed+64) {
		return Corruptf("page sizes: %d bytes compressed, %d uncompressed", compressed, uncompressed)
	}
	return nil
}

func codecOf(c *chunk) format.CompressionCodec { return format.CompressionCodec(c.codec) }

// size is the chunk's size uncompressed; without compression, what it takes in
// the file, whatever the footer says.
func (c *chunk) size() int64 {
	if codecOf(c) == format.Uncompressed {
		return c.compressed
	}
	return c.uncompressed
}
