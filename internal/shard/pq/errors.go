package pq

import (
	"errors"
	"fmt"
	"io"
)

// The errors of a file's bytes. Both are permanent: reading again gives the same.
var (
	// ErrCorrupt: the file's bytes are not valid parquet, or not what its footer says,
	// or can't be decompressed.
	ErrCorrupt = errors.New("corrupt file")
	// ErrColumn: a column that was asked for is missing or has an unusable type.
	ErrColumn = errors.New("unusable column")
)

// Corruptf makes an error that wraps ErrCorrupt.
func Corruptf(form string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrCorrupt, fmt.Errorf(form, a...))
}

// ReadFull fills b from off. A file that ends before is ErrCorrupt.
func ReadFull(r io.ReaderAt, b []byte, off int64) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		if err == nil || err == io.EOF {
			err = Corruptf("the file ends at byte %d, before the end of the data to read", off+int64(n))
		}
		return err
	}
	return nil
}

// Recovered runs do and turns a panic into an error that wraps ErrCorrupt: the
// parquet library panics on schemas that it does not expect, decompressors have
// panicked on bytes that they did not, and one bad file must not end a run.
func Recovered(do func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			err = Corruptf("panic: %w", p)
		default:
			err = Corruptf("panic: %s", fmt.Sprint(p))
		}
	}()
	return do()
}
