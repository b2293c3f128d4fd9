package model

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// later is a digester with its own cache that sees files as long settled.
func later(t *testing.T) *digester {
	t.Helper()
	return &digester{cache: digestCache{filepath.Join(t.TempDir(), "a", "b")},
		now: func() time.Time { return time.Now().Add(time.Hour) }}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// want asks for path's digest and checks it and the number of files read so far.
func (d *digester) want(t *testing.T, path, text string, reads int) {
	t.Helper()
	got, err := d.file(context.Background(), path)
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))); err != nil || got != want {
		t.Errorf("digest %s, %v, want %s", got, err, want)
	}
	if d.reads != reads {
		t.Errorf("%d reads, want %d", d.reads, reads)
	}
}

func TestDigestIsRemembered(t *testing.T) {
	d, path := later(t), filepath.Join(t.TempDir(), "f")
	write(t, path, "one")
	d.want(t, path, "one", 1)
	d.want(t, path, "one", 1)

	// Same size, modification time restored.
	st, _ := os.Stat(path)
	time.Sleep(20 * time.Millisecond) // past the clock's grain
	write(t, path, "two")
	if err := os.Chtimes(path, st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	d.want(t, path, "two", 2)
	d.want(t, path, "two", 2)

	// Another file under the same name.
	other := path + "2"
	write(t, other, "six")
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	d.want(t, path, "six", 3)

	// Damaged entries are no entries.
	entry := d.cache.name(path)
	good, err := os.ReadFile(entry)
	if err != nil {
		t.Fatal(err)
	}
	for i, bad := range []string{"", "{", "null", string(good[:len(good)-4]), `{"digest":"sha256:00"}`} {
		write(t, entry, bad)
		d.want(t, path, "six", 4+i)
	}
	if left, _ := filepath.Glob(filepath.Join(d.cache.dir, ".new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestDigestOfLargeFile: it is read in pieces, of which the last is a part of one.
func TestDigestOfLargeFile(t *testing.T) {
	d, path := later(t), filepath.Join(t.TempDir(), "f")
	text := make([]byte, 5<<20+7)
	for i := range text {
		text[i] = byte(i * i >> 8)
	}
	write(t, path, string(text))
	d.want(t, path, string(text), 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	write(t, path, "new")
	if _, err := d.file(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestFreshFileIsNotRemembered(t *testing.T) {
	d, path := later(t), filepath.Join(t.TempDir(), "f")
	soon := time.Now().Add(settleTime / 2) // however long a busy machine takes to get there
	d.now = func() time.Time { return soon }
	write(t, path, "one")
	d.want(t, path, "one", 1)
	d.want(t, path, "one", 2)
}

func TestCacheThatCannotBeWritten(t *testing.T) {
	d, dir := later(t), t.TempDir()
	write(t, filepath.Join(dir, "file"), "x")
	for i, c := range []string{"", filepath.Join(dir, "file", "below")} {
		d.cache.dir = c
		d.want(t, filepath.Join(dir, "file"), "x", i+1)
	}
}

func TestDigestOfAFolder(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	write(t, filepath.Join(dir, CheckpointName), "w")
	if _, err := Digest(context.Background(), dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without metadata: %v", err)
	}
	write(t, filepath.Join(dir, MetadataName), "m")
	lines := fmt.Sprintf("%x  %s\n%x  %s\n", sha256.Sum256([]byte("w")), CheckpointName, sha256.Sum256([]byte("m")),
		MetadataName)
	want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(lines)))
	if got, err := Digest(context.Background(), dir); err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("the folder has %d files", len(left))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := newDigester().file(ctx, filepath.Join(dir, CheckpointName)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := newDigester().file(context.Background(), dir); err == nil {
		t.Error("a folder has a digest")
	}
}

func TestTokenizerDigestCoversItsConfig(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tokenizer.json")
	write := func(name, body string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o666); err != nil {
			t.Fatal(err)
		}
		sum, err := TokenizerDigest(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	seen := map[string]bool{}
	for _, sum := range []string{
		write("tokenizer.json", "{}"), write("tokenizer.json", "{ }"),
		write("tokenizer_config.json", `{"bos_token": "<s>"}`), write("tokenizer_config.json", `{"bos_token": "</s>"}`),
	} {
		if seen[sum] {
			t.Error("a change of a tokenizer's file left its digest as it was")
		}
		seen[sum] = true
	}
	if _, err := TokenizerDigest(t.Context(), filepath.Join(dir, "gone.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing tokenizer: %v", err)
	}
}
