package store

import (
	"context"
	"fmt"
	"io"

	"surprisal/internal/score"
)

// bucket is files under keys, reached over the network. A call is one attempt;
// its errors wrap those of this package where they can.
type bucket interface {
	stat(ctx context.Context, key string) (Info, error)
	// get gives bytes [off, off+n) of the file, or fewer when the connection ends
	// early; ErrChanged when it has another version.
	get(ctx context.Context, key, version string, off, n int64) (io.ReadCloser, error)
	// list calls do for each file whose key begins with prefix, in order of key.
	list(ctx context.Context, prefix string, do func(Info) error) error
}

func bucketOf(_ context.Context, p score.Place) (bucket, error) {
	return nil, fmt.Errorf("%s: %w", p.Scheme, ErrUnsupported)
}

func stat(ctx context.Context, b bucket, p score.Place) (Info, error) { return b.stat(ctx, p.Key) }

func (o *Object) readRange(ctx context.Context, b []byte, off int64) error {
	return ErrUnsupported
}
