package shard

import "fmt"

// recovered runs do and turns a panic into an error that wraps ErrCorrupt: the
// parquet library panics on schemas that it does not expect, decompressors have
// panicked on bytes that they did not, and one bad file must not end a run.
func recovered(do func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			err = corruptf("panic: %w", p)
		default:
			err = corruptf("panic: %s", fmt.Sprint(p))
		}
	}()
	return do()
}
