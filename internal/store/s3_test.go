package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"surprisal/internal/store"
	"surprisal/internal/testkit/storetest"
)

func randomBytes(n int) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func read(t *testing.T, o *store.Object, off, n int64) ([]byte, error) {
	t.Helper()
	b := make([]byte, n)
	m, err := o.Reader(t.Context()).ReadAt(b, off)
	if err == io.EOF && off+int64(m) == o.Size {
		err = nil
	}
	return b[:m], err
}

func TestS3(t *testing.T) {
	s := storetest.S3(t)
	ctx := t.Context()
	body := randomBytes(1 << 20)
	name := storetest.URL("dir/file.bin")
	if _, err := store.Stat(ctx, name); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before: %v", err)
	}
	info, err := store.PutBytes(ctx, name, body, store.Condition{Absent: true})
	if err != nil || info.Size != int64(len(body)) || info.Version == "" {
		t.Fatalf("%+v (%v)", info, err)
	}
	if !bytes.Equal(s.Get(t, "dir/file.bin"), body) {
		t.Fatal("other bytes are there")
	}
	if _, err := store.PutBytes(ctx, name, []byte("x"), store.Condition{Absent: true}); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("over another: %v", err)
	}
	o, err := store.Open(ctx, name)
	if err != nil || o.Size != info.Size || o.Version != info.Version {
		t.Fatalf("%+v, put %+v (%v)", o, info, err)
	}
	for _, r := range [][2]int64{{0, 1}, {0, 100}, {5, 1 << 19}, {1<<20 - 7, 7}, {1<<20 - 7, 100}, {0, 1 << 20}} {
		b, err := read(t, o, r[0], r[1])
		if end := min(r[0]+r[1], 1<<20); err != nil || !bytes.Equal(b, body[r[0]:end]) {
			t.Fatalf("range %v: %d bytes (%v)", r, len(b), err)
		}
	}
	// Conditional replacement, as leases do it.
	if _, err := store.PutBytes(ctx, name, []byte("y"),
		store.Condition{Version: `"00000000000000000000000000000000"`}); !errors.Is(err, store.ErrChanged) {
		t.Fatalf("over another version: %v", err)
	}
	if info, err = store.PutBytes(ctx, name, body[:1<<19], store.Condition{Version: info.Version}); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, o, 0, 10); !errors.Is(err, store.ErrChanged) {
		t.Fatalf("read of what was replaced: %v", err)
	}
	for range 2 {
		if err := store.Remove(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if o, err = store.OpenVersion(ctx, info); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, o, 0, 10); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("read of what is gone: %v", err)
	}
	if n := s.Uploads(t); n != 0 {
		t.Errorf("%d unfinished uploads", n)
	}
}

func TestS3List(t *testing.T) {
	s := storetest.S3(t)
	var want []string
	for i := range 30 {
		key := "a/" + strings.Repeat("x", i+1) + "/f.parquet"
		s.Put(t, key, []byte("body"))
		want = append(want, storetest.URL(key))
	}
	s.Put(t, "ab/other", nil)
	var got []string
	for info, err := range store.List(t.Context(), storetest.URL("a")) {
		if err != nil {
			t.Fatal(err)
		}
		if info.Size != 4 || info.Version == "" {
			t.Fatalf("%+v", info)
		}
		if one, err := store.Stat(t.Context(), info.Name); err != nil || one.Version != info.Version {
			t.Fatalf("listed as %+v, is %+v (%v)", info, one, err)
		}
		got = append(got, info.Name)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("%v\nwant %v", got, want)
	}
}

// TestListThroughFaults lists through a connection whose first answers fail, a body
// that is cut short after its status among them.
func TestListThroughFaults(t *testing.T) {
	s := storetest.S3(t)
	p := storetest.NewProxy(t, s.URL)
	for i := range 20 {
		s.Put(t, fmt.Sprintf("a/%02d", i), []byte("body"))
	}
	for what, f := range map[string]storetest.Fault{
		"busy": storetest.Busy, "reset": storetest.Reset, "short": storetest.Short, "lost": storetest.Lost,
	} {
		t.Run(what, func(t *testing.T) {
			p.Fail(func(n int, _ *http.Request) storetest.Fault {
				if n < 2 {
					return f
				}
				return storetest.None
			})
			n := 0
			for _, err := range store.List(t.Context(), storetest.URL("a?endpoint="+p.URL)) {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			if n != 20 {
				t.Errorf("%d listed, want 20", n)
			}
		})
	}
}

// TestFaults reads and writes through a connection that fails in each way.
func TestFaults(t *testing.T) {
	s := storetest.S3(t)
	p := storetest.NewProxy(t, s.URL)
	body := randomBytes(3 << 20)
	s.Put(t, "f", body)
	name := storetest.URL("f?endpoint=" + p.URL)
	for what, f := range map[string]storetest.Fault{
		"busy": storetest.Busy, "throttled": storetest.Throttle, "reset": storetest.Reset, "short": storetest.Short,
		"slow": storetest.Slow,
		"lost": storetest.Lost,
	} {
		t.Run(what, func(t *testing.T) {
			p.Take()
			p.Fail(func(n int, _ *http.Request) storetest.Fault {
				if n == 0 || n == 2 {
					return f
				}
				return storetest.None
			})
			o, err := store.Open(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				b, err := read(t, o, 0, o.Size)
				if err != nil || !bytes.Equal(b, body) {
					t.Fatalf("%d bytes (%v)", len(b), err)
				}
			}
			rs := p.Take()
			// A reset loses what lies in buffers; no other fault loses a byte.
			if n := storetest.Bytes(rs); f != storetest.Lost && f != storetest.Reset && n > 2*int64(len(body))+100 {
				t.Errorf("%d bytes were sent for %d: what had come was asked for again: %+v", n, 2*len(body), rs)
			}
			if last := rs[len(rs)-1]; f == storetest.Reset && strings.HasPrefix(last.Range, "bytes=0-") {
				t.Errorf("not taken up where it ended: %+v", rs)
			}
			p.Fail(func(n int, _ *http.Request) storetest.Fault {
				if n == 0 {
					return f
				}
				return storetest.None
			})
			put := storetest.URL("put-" + what + "?endpoint=" + p.URL)
			_, err = store.PutBytes(t.Context(), put, body, store.Condition{Absent: true})
			if err != nil && (f != storetest.Lost || !errors.Is(err, fs.ErrExist)) {
				t.Fatal(err)
			}
			if !bytes.Equal(s.Get(t, "put-"+what), body) {
				t.Fatal("other bytes were put")
			}
		})
	}
}

// TestErrors: one line each, that names what to do and no secret.
func TestErrors(t *testing.T) {
	s := storetest.S3(t)
	s.Put(t, "there", []byte("x"))
	for _, tc := range []struct {
		what, name string
		env        map[string]string
		kind       error
		says       string
	}{
		{"no file", storetest.URL("nothing"), nil, fs.ErrNotExist, "check the name"},
		{"no bucket", "s3://nobucket/x", nil, fs.ErrNotExist, "not found"},
		{"wrong key", storetest.URL("there"), map[string]string{"AWS_SECRET_ACCESS_KEY": "wrong-secret"},
			store.ErrDenied,
			"AWS_"},
		{"no credentials", storetest.URL("there"), map[string]string{"AWS_ACCESS_KEY_ID": "",
			"AWS_SECRET_ACCESS_KEY": ""},
			store.ErrDenied, "AWS_ACCESS_KEY_ID"},
		{"anonymous", storetest.URL("there?anonymous=true"), nil, store.ErrDenied, "denied"},
		{"signed", "https://example.org/x?X-Amz-Signature=abcdef", nil, nil, "signed URLs are refused"},
		{"user info", "https://user:abcdef@example.org/x", nil, nil, "user info"},
		{"user info", "s3://AK:abcdef@bucket/x", nil, nil, "user info"},
		{"no server", storetest.URL("there?endpoint=http://127.0.0.1:1"), nil, store.ErrUnreachable, "127.0.0.1:1"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			storetest.Setenv(t, tc.env)
			if tc.kind == store.ErrUnreachable && testing.Short() {
				t.Skip("short: tries for 20 s")
			}
			_, err := store.Stat(t.Context(), tc.name)
			if err == nil || tc.kind != nil && !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("got %v", err)
			}
			t.Log(err)
			for _, secret := range []string{"abcdef", storetest.SecretKey, "wrong-secret", "\n"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q is told: %v", secret, err)
				}
			}
		})
	}
}
