package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"surprisal/internal/store"
	"surprisal/internal/testkit/storetest"
)

func TestGS(t *testing.T) {
	storetest.GS(t)
	conforms(t, "gs://"+storetest.Bucket)
}

func TestAZ(t *testing.T) {
	storetest.AZ(t)
	conforms(t, "az://"+storetest.Bucket)
}

// conforms holds a bucket to what is asked of those that can be written to.
func conforms(t *testing.T, root string) {
	ctx := t.Context()
	body := randomBytes(1 << 20)
	name := root + "/dir/file.bin"
	if _, err := store.Stat(ctx, name); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before: %v", err)
	}
	info, err := store.PutBytes(ctx, name, body, store.Condition{Absent: true})
	if err != nil || info.Size != int64(len(body)) || info.Version == "" {
		t.Fatalf("%+v (%v)", info, err)
	}
	if _, err := store.PutBytes(ctx, name, []byte("x"), store.Condition{Absent: true}); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("over another: %v", err)
	}
	o, err := store.Open(ctx, name)
	if err != nil || o.Size != info.Size || o.Version != info.Version {
		t.Fatalf("%+v, put %+v (%v)", o, info, err)
	}
	for _, r := range [][2]int64{{0, 1}, {5, 1 << 19}, {1<<20 - 7, 7}, {0, 1 << 20}} {
		if b, err := read(t, o, r[0], r[1]); err != nil || !bytes.Equal(b, body[r[0]:r[0]+r[1]]) {
			t.Fatalf("range %v: %d bytes (%v)", r, len(b), err)
		}
	}
	n := 0
	for one, err := range store.List(ctx, root+"/dir") {
		if err != nil || one.Version != info.Version || one.Name != name {
			t.Fatalf("%+v (%v)", one, err)
		}
		n++
	}
	if n != 1 {
		t.Fatalf("%d files listed", n)
	}
	if info, err = store.PutBytes(ctx, name, body[:9], store.Condition{Version: info.Version}); err != nil {
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
	if _, err := read(t, o, 0, 10); err == nil {
		t.Fatal("read of what is gone")
	}
	if _, err := store.PutBytes(ctx, name, body, store.Condition{Version: info.Version}); err == nil {
		t.Fatal("put over a version that is gone")
	}
	if _, err := store.Stat(ctx, strings.Replace(name, storetest.Bucket, "nobucket", 1)); !errors.Is(err,
		fs.ErrNotExist) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("no bucket: %v", err)
	}
	// Larger than one request takes.
	large := randomBytes(33<<20 + 5)
	if info, err = store.PutBytes(ctx, name, large, store.Condition{Absent: true}); err != nil ||
		info.Size != int64(len(large)) {
		t.Fatalf("%+v (%v)", info, err)
	}
	if _, err := store.PutBytes(ctx, name, large[1:], store.Condition{Absent: true}); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("over a large one: %v", err)
	}
	if o, err = store.Open(ctx, name); err != nil {
		t.Fatal(err)
	}
	if b, err := read(t, o, 0, o.Size); err != nil || !bytes.Equal(b, large) {
		t.Fatalf("%d bytes (%v)", len(b), err)
	}
}
