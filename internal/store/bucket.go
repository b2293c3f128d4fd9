package store

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"surprisal/internal/place"
)

// bucket is a set of files under keys, accessed over the network. A call is one attempt;
// errors worth a retry are *transient, others are this package's.
type bucket interface {
	stat(ctx context.Context, key string) (Info, error)
	// get returns bytes [off, off+n) of the file, or fewer if the connection ends early;
	// ErrChanged if the file has another version.
	get(ctx context.Context, want Info, key string, off, n int64) (io.ReadCloser, error)
	// page returns some of the files whose key begins with prefix, sorted by key, and the
	// token of the next page, empty at the end.
	page(ctx context.Context, prefix, token string) ([]Info, string, error)
}

// writable is a bucket that can be written to.
type writable interface {
	bucket
	put(ctx context.Context, key string, body io.ReadSeeker, size int64, when Condition) (Info, error)
	remove(ctx context.Context, key string) error
}

// buckets has the open buckets by root, because clients share connections and
// credentials. They live as long as the process.
var buckets struct {
	sync.Mutex
	open map[string]bucket
}

// bucketOf returns the bucket of p, which it opens if necessary.
func bucketOf(ctx context.Context, p place.Place) (bucket, error) {
	if err := fenceOf(ctx).Check(p.String()); err != nil {
		return nil, err
	}
	root := p.Root()
	buckets.Lock()
	defer buckets.Unlock()
	if b, ok := buckets.open[root.String()]; ok {
		return b, nil
	}
	var b bucket
	var err error
	switch p.Scheme {
	case "s3":
		b, err = openS3(ctx, root)
	case "gs", "az":
		b, err = openCloud(ctx, root)
	case "https":
		b = openWeb(root)
	case "hf":
		b, err = openHub(root)
	default:
		err = fmt.Errorf("%s: %w", root, ErrUnsupported)
	}
	if err != nil {
		return nil, err
	}
	if buckets.open == nil {
		buckets.open = map[string]bucket{}
	}
	buckets.open[root.String()] = b
	return b, nil
}

// Forget drops all clients, so that new ones read the environment again.
func Forget() {
	buckets.Lock()
	defer buckets.Unlock()
	buckets.open = nil
}

// at parses a URL and opens its bucket.
func at(ctx context.Context, name string) (place.Place, bucket, error) {
	p, err := place.Parse(name)
	if err != nil {
		return p, nil, err
	}
	b, err := bucketOf(ctx, p)
	return p, b, err
}

func stat(ctx context.Context, b bucket, p place.Place) (info Info, err error) {
	err = retry(ctx, p.String(), func() (bool, error) {
		info, err = b.stat(ctx, p.Key)
		return false, err
	})
	return info, err
}

// stallAfter is how long a body may deliver nothing.
const stallAfter = 30 * time.Second

// readRange fills b from off.
func (o *Object) readRange(ctx context.Context, b []byte, off int64) error {
	done := 0
	return retry(ctx, o.Name, func() (bool, error) {
		n, err := o.readOnce(ctx, b[done:], off+int64(done))
		done += n
		return n > 0, err
	})
}

// readOnce makes one request and returns the number of bytes read.
func (o *Object) readOnce(ctx context.Context, b []byte, off int64) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := o.bucket.get(ctx, o.Info, o.key, off, int64(len(b)))
	if err != nil {
		return 0, err
	}
	defer body.Close()
	stalled := time.AfterFunc(stallAfter, cancel)
	defer stalled.Stop()
	for n < len(b) {
		m, err := body.Read(b[n:])
		n += m
		switch {
		case n == len(b):
			return n, nil
		case err == io.EOF:
			return n, &transient{err: fmt.Errorf("connection closed after %d of %d bytes at %d", n, len(b), off)}
		case err != nil && !stalled.Stop() && ctx.Err() != nil:
			return n, &transient{err: fmt.Errorf("no data for %s", stallAfter)}
		case err != nil:
			return n, networkError(err)
		}
		stalled.Reset(stallAfter)
	}
	return n, nil
}
