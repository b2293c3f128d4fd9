package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"surprisal/internal/place"
)

// serve makes an https server the one that URLs of its host reach.
func serve(t *testing.T, h http.HandlerFunc) (root string) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	root = s.URL
	p, err := place.Parse(root)
	if err != nil {
		t.Fatal(err)
	}
	w := openWeb(p)
	w.client.Transport = s.Client().Transport // it knows the server's certificate
	buckets.Lock()
	defer buckets.Unlock()
	if buckets.open == nil {
		buckets.open = map[string]bucket{}
	}
	buckets.open[p.String()] = w
	t.Cleanup(Forget)
	return root
}

func TestWeb(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 1000)
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	content := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", when, bytes.NewReader(body))
	}
	for name, tc := range map[string]struct {
		serve   http.HandlerFunc
		openErr string
		readErr string
		kind    error
	}{
		"etag": {serve: func(w http.ResponseWriter, r *http.Request) { w.Header().Set("ETag", `"v1"`); content(w, r) }},
		"weak etag": {serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `W/"v1"`)
			content(w, r)
		}},
		"date alone": {serve: content},
		"no HEAD": {serve: func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			content(w, r)
		}},
		"no ranges": {serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"v1"`)
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			_, _ = w.Write(body)
		}},
		"redirect": {serve: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/dir/file" {
				http.Redirect(w, r, "/cdn?Signature=5ec7e7", http.StatusFound)
				return
			}
			content(w, r)
		}},
		"changes": {serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"v1"`)
			if r.Method == http.MethodGet {
				w.Header().Set("ETag", `"v2"`)
			}
			content(w, r)
		}, readErr: "has changed", kind: ErrChanged},
		"changes size": {serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"v1"`)
			if r.Method == http.MethodGet {
				http.ServeContent(w, r, "", when, bytes.NewReader(body[:5000]))
				return
			}
			content(w, r)
		}, readErr: "has changed", kind: ErrChanged},
		"another range": {serve: func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 1-10000/%d", len(body)))
				w.Header().Set("Last-Modified", when.Format(http.TimeFormat))
				w.WriteHeader(http.StatusPartialContent)
				return
			}
			content(w, r)
		}, readErr: "instead of"},
		"no size": {serve: func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() }, openErr: "size"},
		"missing": {serve: http.NotFound, openErr: "file not found", kind: fs.ErrNotExist},
		"denied": {serve: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
			openErr: "denied", kind: ErrDenied},
		"plain http": {serve: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/x?Signature=5ec7e7", http.StatusFound)
		}, openErr: "not https"},
	} {
		t.Run(name, func(t *testing.T) {
			url := serve(t, tc.serve) + "/dir/file"
			o, err := Open(t.Context(), url)
			if err == nil {
				b := make([]byte, len(body))
				for _, off := range []int{0, 7} {
					if _, rerr := o.Reader(t.Context()).ReadAt(b[off:], int64(off)); rerr != nil {
						err = rerr
						break
					}
				}
				if err == nil && !bytes.Equal(b, body) {
					t.Fatal("other bytes")
				}
			} else if tc.openErr == "" {
				t.Fatal(err)
			}
			want := tc.openErr + tc.readErr
			if (want == "") != (err == nil) || err != nil &&
				(!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "5ec7e7")) ||
				tc.kind != nil && !errors.Is(err, tc.kind) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// FuzzContentRange: what a server says is taken as it is or refused.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-9/*", "bytes */10", "", "bytes 0-9", "bytes -1-9/10",
		"bytes 0-9/99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, total, err := contentRange(s)
		if err == nil && (first < 0 || total < -1 || !strings.HasPrefix(s, "bytes ")) {
			t.Fatalf("%q is %d of %d", s, first, total)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, "-1": 0, "x": 0, now.Add(time.Minute).Format(http.TimeFormat): time.Minute,
		now.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {v}}, now); got != want {
			t.Errorf("%q: %s, want %s", v, got, want)
		}
	}
}
