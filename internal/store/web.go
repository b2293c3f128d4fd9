package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"surprisal/internal/place"
)

// web is an https server, for single files named by their full URL.
type web struct {
	root   place.Place
	client *http.Client
}

func openWeb(root place.Place) *web {
	c := httpClient()
	c.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		switch {
		case r.URL.Scheme != "https":
			return fmt.Errorf("%w: its target is not https", errRedirect)
		case len(via) >= 10:
			return fmt.Errorf("%w: more than 10 redirects", errRedirect)
		}
		r.Header.Del("Referer") // it may contain a signature
		return nil
	}
	return &web{root, c}
}

func (w *web) url(key string) string { return "https://" + w.root.Host + "/" + key }

// name is a file's name in errors, as the user wrote it.
func (w *web) name(key string) string { return w.root.Join(key).String() }

func (w *web) stat(ctx context.Context, key string) (Info, error) {
	resp, err := request(ctx, w.client, http.MethodHead, w.url(key), nil)
	if err != nil {
		return Info{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusMethodNotAllowed || resp.StatusCode == http.StatusNotImplemented ||
		resp.StatusCode == http.StatusForbidden {
		return w.statByGet(ctx, key)
	}
	if resp.StatusCode != http.StatusOK {
		return Info{}, statusError(w.name(key), resp.StatusCode, "", resp.Header)
	}
	return w.info(key, resp, resp.ContentLength)
}

// statByGet requests one byte, for servers that refuse HEAD.
func (w *web) statByGet(ctx context.Context, key string) (Info, error) {
	resp, err := request(ctx, w.client, http.MethodGet, w.url(key), http.Header{"Range": {"bytes=0-0"}})
	if err != nil {
		return Info{}, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return w.info(key, resp, resp.ContentLength)
	case http.StatusPartialContent:
		_, total, err := contentRange(resp.Header.Get("Content-Range"))
		if err != nil {
			return Info{}, &Error{w.name(key), err.Error(), nil}
		}
		return w.info(key, resp, total)
	}
	return Info{}, statusError(w.name(key), resp.StatusCode, "", resp.Header)
}

func (w *web) info(key string, resp *http.Response, size int64) (Info, error) {
	if size < 0 {
		return Info{}, &Error{w.name(key), "the server does not report the size: copy the file to a folder or a bucket",
			ErrUnsupported}
	}
	return Info{Name: w.name(key), Size: size, Version: httpVersion(resp.Header)}, nil
}

// httpVersion is the etag or the modification time.
func httpVersion(h http.Header) string {
	if e := h.Get("ETag"); e != "" {
		return e
	}
	return h.Get("Last-Modified")
}

func (w *web) get(ctx context.Context, want Info, key string, off, n int64) (io.ReadCloser, error) {
	h := rangeHeader(off, n)
	if strings.HasPrefix(want.Version, `"`) {
		h.Set("If-Match", want.Version)
	}
	resp, err := request(ctx, w.client, http.MethodGet, w.url(key), h)
	if err != nil {
		return nil, err
	}
	if ok(resp) && httpVersion(resp.Header) != want.Version {
		_ = resp.Body.Close()
		return nil, changed(want, httpVersion(resp.Header), want.Size)
	}
	return body(resp, want, off, n)
}

func (w *web) page(context.Context, string, string) ([]Info, string, error) {
	return nil, "", &Error{w.root.String(), "a web server cannot be listed: name each file", ErrUnsupported}
}

const userAgent = "surprisal"

// request sends one request. Its errors are those of the network.
func request(ctx context.Context, c *http.Client, method, url string, h http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, errors.New("not a valid URL")
	}
	if h != nil {
		req.Header = h
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := c.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, networkError(err)
	}
	return resp, nil
}

func rangeHeader(off, n int64) http.Header {
	return http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, off+n-1)}}
}

func ok(resp *http.Response) bool {
	return resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent
}

// maxSkip is how much may be skipped if a server does not support ranges.
const maxSkip = 16 << 20

// body returns bytes [off, off+n) of the response to a request for them.
func body(resp *http.Response, want Info, off, n int64) (_ io.ReadCloser, err error) {
	defer func() {
		if err != nil {
			_ = resp.Body.Close()
		}
	}()
	switch resp.StatusCode {
	case http.StatusPartialContent:
		first, total, err := contentRange(resp.Header.Get("Content-Range"))
		if err != nil {
			return nil, &Error{want.Name, err.Error(), nil}
		}
		if total >= 0 && total != want.Size {
			return nil, changed(want, "", total)
		}
		if first != off {
			return nil, &Error{want.Name, fmt.Sprintf("the server sent byte %d instead of %d", first, off), nil}
		}
	case http.StatusOK:
		if resp.ContentLength >= 0 && resp.ContentLength != want.Size {
			return nil, changed(want, "", resp.ContentLength)
		}
		if off > maxSkip {
			return nil, &Error{want.Name, "the server does not support ranges: copy the file to a folder or a bucket",
				ErrUnsupported}
		}
		if _, err := io.CopyN(io.Discard, resp.Body, off); err != nil {
			return nil, networkError(err)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return nil, changed(want, "", -1)
	default:
		return nil, statusError(want.Name, resp.StatusCode, "", resp.Header)
	}
	return limited{io.LimitReader(resp.Body, n), resp.Body}, nil
}

type limited struct {
	io.Reader
	io.Closer
}

// contentRange reads "bytes first-last/total"; total is -1 for *.
func contentRange(s string) (first, total int64, err error) {
	bad := fmt.Errorf("the server sent the range %.40q", s)
	s, isBytes := strings.CutPrefix(s, "bytes ")
	span, all, slash := strings.Cut(s, "/")
	from, _, dash := strings.Cut(span, "-")
	if !isBytes || !slash || !dash {
		return 0, 0, bad
	}
	first, err = strconv.ParseInt(from, 10, 64)
	if err != nil || first < 0 {
		return 0, 0, bad
	}
	if all == "*" {
		return first, -1, nil
	}
	total, err = strconv.ParseInt(all, 10, 64)
	if err != nil || total < 0 {
		return 0, 0, bad
	}
	return first, total, nil
}

// escapePath escapes a key's parts for a URL.
func escapePath(key string) string {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}
