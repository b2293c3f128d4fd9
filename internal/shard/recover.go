package shard

import (
	"fmt"
	"runtime"
)

// recovered runs do and turns a panic into an error that wraps ErrCorrupt: the
// parquet library panics on schemas that it does not expect. Errors of the Go
// runtime that tell of our own bugs are named as such.
func recovered(do func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case runtime.Error:
			err = corruptf("the parquet library failed: %w", p)
		case error:
			err = corruptf("%w", p)
		default:
			err = corruptf("%s", fmt.Sprint(p))
		}
	}()
	return do()
}
