package pq

import (
	"io"
	"os"
	"sync"
)

// spoolBytes is how much of a row group waits in memory before it goes to disk.
const spoolBytes = 16 << 20

// spool holds a row group's pages until those before it are written: the first
// bytes in memory, all of them in a file once they are many.
type spool struct {
	make func() (*os.File, error) // the file, which has no name any more
	buf  []byte
	file *os.File
	n    int64
}

var spoolPool = sync.Pool{New: func() any { return new([]byte) }}

func (s *spool) Write(b []byte) (int, error) {
	s.n += int64(len(b))
	if s.buf == nil {
		s.buf = *spoolPool.Get().(*[]byte)
	}
	if s.file == nil && len(s.buf)+len(b) > spoolBytes {
		var err error
		if s.file, err = s.make(); err != nil {
			return 0, err
		}
	}
	if s.file != nil && len(s.buf)+len(b) > 1<<20 {
		if _, err := s.file.Write(s.buf); err != nil {
			return 0, err
		}
		s.buf = s.buf[:0]
		if len(b) > 1<<20 {
			return s.file.Write(b)
		}
	}
	s.buf = append(s.buf, b...)
	return len(b), nil
}

// copyTo writes bytes [from, to) of what was written to w.
func (s *spool) copyTo(w io.Writer, from, to int64) error {
	if s.file == nil {
		_, err := w.Write(s.buf[from:to])
		return err
	}
	if len(s.buf) > 0 {
		if _, err := s.file.Write(s.buf); err != nil {
			return err
		}
		s.buf = s.buf[:0]
	}
	// A copy of files by their kernel, where there is one.
	if _, err := s.file.Seek(from, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(w, s.file, to-from)
	return err
}

func (s *spool) close() error {
	if buf := s.buf[:0]; cap(buf) > 0 {
		spoolPool.Put(&buf)
		s.buf = nil
	}
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}
