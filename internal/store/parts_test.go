package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"surprisal/internal/store"
	"surprisal/internal/testkit/storetest"
)

// largeBody is two parts.
func largeBody() []byte {
	b := make([]byte, 70<<20+17)
	var key [32]byte
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}

func isComplete(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}

// TestS3Parts puts a file that is too large for one request: it is there whole or
// not at all, and no upload stays.
func TestS3Parts(t *testing.T) {
	if testing.Short() {
		t.Skip("short: puts 70 MiB several times")
	}
	s := storetest.S3(t)
	p := storetest.NewProxy(t, s.URL)
	ctx := t.Context()
	body := largeBody()
	size := int64(len(body))
	put := func(ctx context.Context, key string, b []byte, when store.Condition) (store.Info, error) {
		return store.Put(ctx, storetest.URL(key+"?endpoint="+p.URL), bytes.NewReader(b), int64(len(b)), when)
	}
	check := func(key string, want []byte) {
		t.Helper()
		if got := s.Get(t, key); sha256.Sum256(got) != sha256.Sum256(want) || len(got) != len(want) {
			t.Errorf("%s: %d bytes are there, %d were put, or others", key, len(got), len(want))
		}
		if n := s.Uploads(t); n != 0 {
			t.Errorf("%d unfinished uploads", n)
		}
	}

	info, err := put(ctx, "whole", body, store.Condition{Absent: true})
	if err != nil || info.Size != size {
		t.Fatalf("%+v (%v)", info, err)
	}
	check("whole", body)
	if there, err := store.Stat(ctx, storetest.URL("whole")); err != nil || there.Version != info.Version {
		t.Errorf("put as %+v, is %+v (%v)", info, there, err)
	}
	p.Take()
	if _, err := put(ctx, "whole", body, store.Condition{Absent: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another: %v", err)
	}
	if rs := p.Take(); len(rs) != 1 {
		t.Errorf("over another: %d requests: %+v", len(rs), rs)
	}
	// Another file comes while the parts are sent.
	p.Fail(func(_ int, r *http.Request) storetest.Fault {
		if isComplete(r) {
			s.Put(t, "raced", []byte("other"))
		}
		return storetest.None
	})
	if _, err := put(ctx, "raced", body, store.Condition{Absent: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over one that came meanwhile: %v", err)
	}
	check("raced", []byte("other"))
	p.Fail(nil)
	if _, err := put(ctx, "whole", body[1:],
		store.Condition{Version: `"00000000000000000000000000000000"`}); !errors.Is(err, store.ErrChanged) {
		t.Errorf("over another version: %v", err)
	}
	check("whole", body)
	if _, err := put(ctx, "whole", body[1:], store.Condition{Version: info.Version}); err != nil {
		t.Error(err)
	}
	check("whole", body[1:])

	// One request in five fails.
	rng := rand.New(rand.NewPCG(7, 7))
	faults := []storetest.Fault{storetest.Busy, storetest.Lost, storetest.Short, storetest.Reset}
	p.Fail(func(int, *http.Request) storetest.Fault {
		if rng.IntN(5) == 0 {
			return faults[rng.IntN(len(faults))]
		}
		return storetest.None
	})
	if _, err := put(ctx, "faults", body, store.Condition{Absent: true}); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	check("faults", body)
	// Each answer but the parts' is lost once: of the beginning, which leaves an
	// upload that nobody knows, and of the end, after which there is none.
	for key, lose := range map[string]func(*http.Request) bool{
		"begin": func(r *http.Request) bool { return r.URL.Query().Has("uploads") },
		"end":   isComplete,
	} {
		var lost atomic.Bool
		p.Fail(func(_ int, r *http.Request) storetest.Fault {
			if lose(r) && lost.CompareAndSwap(false, true) {
				return storetest.Lost
			}
			return storetest.None
		})
		if _, err := put(ctx, key, body, store.Condition{Absent: true}); err != nil &&
			(key != "end" || !errors.Is(err, fs.ErrExist)) {
			t.Errorf("%s: %v", key, err)
		}
		check(key, body)
	}

	// Cut off by its caller: nothing stays.
	cctx, cancel := context.WithCancel(ctx)
	p.Fail(func(_ int, r *http.Request) storetest.Fault {
		if strings.Contains(r.URL.RawQuery, "partNumber=2") {
			cancel()
		}
		return storetest.None
	})
	if _, err := put(cctx, "cut", body, store.Condition{Absent: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %v", err)
	}
	check("cut", nil)
	p.Fail(nil)
	// What a killed attempt left goes when the next one brings the file.
	s.Begin(t, "killed")
	s.Begin(t, "killed2")
	if _, err := put(ctx, "killed", body, store.Condition{Absent: true}); err != nil {
		t.Error(err)
	}
	if n := s.Uploads(t); n != 1 {
		t.Errorf("%d unfinished uploads, want that of the other file", n)
	}
}
