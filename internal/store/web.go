package store

import (
	"context"
	"io"
	"net/http"

	"surprisal/internal/score"
)

type web struct {
	root   score.Place
	client *http.Client
}

func (w *web) stat(ctx context.Context, key string) (Info, error) { return Info{}, ErrUnsupported }
func (w *web) get(ctx context.Context, want Info, key string, off, n int64) (io.ReadCloser, error) {
	return nil, ErrUnsupported
}
func (w *web) page(ctx context.Context, prefix, token string) ([]Info, string, error) {
	return nil, "", ErrUnsupported
}
func openHub(root score.Place) (bucket, error) { return nil, ErrUnsupported }
