package jsonl

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"surprisal/internal/shard/pq"
)

const (
	MaxLine       = 64 << 20 // bytes of a line that is looked at
	maxZstdMemory = 128 << 20
	linesBuffer   = 1 << 20
	remoteBuffer  = 8 << 20 // of a file that each read is a request to
)

// Scanner gives the lines of a file that are not blank, one after another,
// in the memory of the longest.
type Scanner struct {
	ctx   context.Context // of the whole pass over the file: lines are read one by one, across calls
	r     *bufio.Reader
	raw   failing
	end   func()
	off   int64 // of the next line, in what is read
	start int64 // of the line that was given
	size  int64 // of that line, all of it
	line  []byte
	// over gets lines longer than the limit, as they are read; nil drops what is
	// over it. spilled tells that the line went there.
	over    io.Writer
	spilled bool
}

// NewScanner reads a file of the given name and size from a byte offset on, which
// compressed files don't have. The caller must close it.
func NewScanner(ctx context.Context, file io.ReaderAt, name string, size, off int64) (*Scanner, error) {
	buffer := linesBuffer
	if f, ok := file.(pq.Remote); ok && !f.Local() {
		buffer = remoteBuffer
	}
	l := &Scanner{ctx: ctx, off: off, end: func() {}}
	l.raw.Reader = io.NewSectionReader(file, off, size-off)
	var r io.Reader = &l.raw
	switch {
	case strings.HasSuffix(name, ".gz"):
		z, err := gzip.NewReader(bufio.NewReaderSize(r, buffer))
		if err != nil {
			return nil, l.failed(err)
		}
		r = z
	case strings.HasSuffix(name, ".zst"):
		z, err := zstd.NewReader(bufio.NewReaderSize(r, buffer), zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxWindow(maxZstdMemory),
			zstd.WithDecoderMaxMemory(maxZstdMemory))
		if err != nil {
			return nil, l.failed(err)
		}
		r, l.end, buffer = z, z.Close, linesBuffer
	}
	l.r = bufio.NewReaderSize(r, buffer)
	return l, nil
}

// failing notes an error of reading, which is not in the bytes read.
type failing struct {
	io.Reader
	err error
}

func (f *failing) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// failed is what an error of reading means: the bytes are bad, unless they could
// not be read.
func (l *Scanner) failed(err error) error {
	if l.raw.err != nil {
		return l.raw.err
	}
	return pq.Corruptf("compressed data: %w", err)
}

// Close lets the decompressor go; the file stays open.
func (l *Scanner) Close() { l.end() }

// Next finds the next line that is not blank; io.EOF past the last.
func (l *Scanner) Next() error { return l.next(MaxLine) }

// Skip is Next, and leaves no line to be read.
func (l *Scanner) Skip() error { return l.next(0) }

// Start is where the line begins in the file, if that is not compressed.
func (l *Scanner) Start() int64 { return l.start }

// Size is the length of the line in bytes.
func (l *Scanner) Size() int64 { return l.size }

// Object reads the line; problem says why it is not an object.
func (l *Scanner) Object() (o Object, problem string) { return parseObject(l.line, l.size) }

// next finds the next line that is not blank; io.EOF past the last. Of a line
// longer than limit, only so much is kept; with limit 0 nothing is.
func (l *Scanner) next(limit int) error {
	for {
		if err := l.ctx.Err(); err != nil {
			return err
		}
		l.start, l.size, l.line, l.spilled = l.off, 0, l.line[:0], false
		blank := true
		for {
			part, err := l.r.ReadSlice('\n')
			l.off += int64(len(part))
			l.size += int64(len(part))
			if l.start == 0 && l.size == int64(len(part)) {
				part = bytes.TrimPrefix(part, []byte("\xef\xbb\xbf"))
			}
			if blank {
				blank = len(bytes.TrimLeft(part, " \t\r\n")) == 0
			}
			n := max(min(len(part), limit-len(l.line)), 0)
			l.line = append(l.line, part[:n]...)
			if werr := l.spill(part[n:]); werr != nil {
				return werr
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if err == nil || err == io.EOF {
				if blank && err == nil {
					break // a blank line is no row
				}
				if blank {
					return io.EOF
				}
				return nil
			}
			return l.failed(err)
		}
	}
}

// spill passes on what does not fit into line, and line before it.
func (l *Scanner) spill(rest []byte) error {
	if l.over == nil || len(rest) == 0 {
		return nil
	}
	if !l.spilled {
		l.spilled = true
		if _, err := l.over.Write(l.line); err != nil {
			return err
		}
	}
	_, err := l.over.Write(rest)
	return err
}
