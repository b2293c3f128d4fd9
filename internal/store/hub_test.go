package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"surprisal/internal/store"
	"surprisal/internal/testkit/pythontest"
	"surprisal/internal/testkit/storetest"
)

func TestHub(t *testing.T) {
	h := storetest.NewHub(t, nil)
	body, note := randomBytes(1<<20), []byte("# read me\n")
	files := map[string][]byte{"README.md": note}
	for _, n := range []string{"data/a b/000.parquet", "data/CC/001.parquet", "data/CC/002.parquet",
		"other/x.parquet"} {
		files[n] = append([]byte(n), body...)
	}
	commit := h.Commit("datasets", "org/set", files)
	var names []string
	for info, err := range store.List(t.Context(), "hf://datasets/org/set/data") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
		one, err := store.Stat(t.Context(), info.Name)
		if err != nil || one != info || len(info.Version) != 64 {
			t.Fatalf("listed as %+v, is %+v (%v)", info, one, err)
		}
	}
	if got := strings.Join(names, "\n"); strings.Count(got, "hf://datasets/org/set@"+commit+"/data/") != 3 {
		t.Fatalf("listed: %s", got)
	}
	h.LinkUses = 2
	for name, want := range files {
		o, err := store.Open(t.Context(), "hf://datasets/org/set/"+name)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range [][2]int64{{0, o.Size}, {o.Size / 2, 5}, {o.Size - 3, 3}, {1, 4}, {0, 1}} {
			if b, err := read(t, o, r[0], r[1]); err != nil || !bytes.Equal(b, want[r[0]:r[0]+r[1]]) {
				t.Fatalf("%s %v: %d bytes (%v)", name, r, len(b), err)
			}
		}
	}
	// A new commit: what is open, or pinned by name, stays.
	o, err := store.Open(t.Context(), "hf://datasets/org/set/data/CC/001.parquet")
	if err != nil {
		t.Fatal(err)
	}
	h.Commit("datasets", "org/set", map[string][]byte{"data/CC/001.parquet": []byte("new")})
	store.Forget()
	if again, err := store.OpenVersion(t.Context(), o.Info); err != nil {
		t.Fatal(err)
	} else if _, err := read(t, again, 0, 10); err != nil {
		t.Fatalf("of the commit before: %v", err)
	}
	if fresh, err := store.Stat(t.Context(), "hf://datasets/org/set/data/CC/001.parquet"); err != nil || fresh.Size != 3 {
		t.Fatalf("%+v (%v)", fresh, err)
	}
	// Other bytes under the same commit.
	store.Forget()
	if o, err = store.Open(t.Context(), "hf://datasets/org/set/data/CC/001.parquet"); err != nil {
		t.Fatal(err)
	}
	h.SetFile("datasets", "org/set", "data/CC/001.parquet", []byte("odd"))
	if _, err := read(t, o, 0, 3); !errors.Is(err, store.ErrChanged) {
		t.Fatalf("changed: %v", err)
	}
}

func TestHubRefuses(t *testing.T) {
	h := storetest.NewHub(t, nil)
	for _, repo := range []string{"org/open", "org/private", "org/gated"} {
		h.Commit("datasets", repo, map[string][]byte{"a.parquet": []byte("x")})
	}
	for _, tc := range []struct {
		name, token string
		kind        error
		says        string
	}{
		{"hf://datasets/org/open/a.parquet", "", nil, ""},
		{"hf://datasets/org/private/a.parquet", h.Token, nil, ""},
		{"hf://datasets/org/gated/a.parquet", h.Token, nil, ""},
		{"hf://datasets/org/private/a.parquet", "", store.ErrDenied, "set HF_TOKEN"},
		{"hf://datasets/org/private/a.parquet", "wr0ng", store.ErrDenied, "has no access to it"},
		{"hf://datasets/org/gated/a.parquet", "", store.ErrDenied, "accept its terms"},
		{"hf://datasets/org/nothing/a.parquet", "", store.ErrDenied, "check the name"},
		{"hf://datasets/org/open/b.parquet", "", fs.ErrNotExist, "file not found"},
		{"hf://datasets/org/open@v9/a.parquet", "", fs.ErrNotExist, "revision not found"},
		{"hf://datasets/org", "", nil, "hf URLs are"},
	} {
		storetest.Setenv(t, map[string]string{"HF_TOKEN": tc.token})
		_, err := store.Stat(t.Context(), tc.name)
		if tc.says == "" && err == nil {
			continue
		}
		if err == nil || tc.kind != nil && !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: got %v", tc.name, err)
			continue
		}
		if s := err.Error(); strings.Contains(s, "wr0ng") || strings.Contains(s, h.Token) || strings.Contains(s, "\n") {
			t.Errorf("told: %v", err)
		}
	}
}

// TestDownload brings a model through connections that fail, in the layout of
// the Python library, and twice at once.
func TestDownload(t *testing.T) {
	var proxies []*storetest.Proxy
	h := storetest.NewHub(t, func(url string) string {
		p := storetest.NewProxy(t, url)
		p.Fail(func(n int, _ *http.Request) storetest.Fault {
			return []storetest.Fault{storetest.Reset, storetest.None, storetest.Short, storetest.Busy, storetest.None,
				storetest.None}[n%6]
		})
		proxies = append(proxies, p)
		return p.URL
	})
	h.LinkUses = 1
	home := os.Getenv("HF_HOME")
	ckpt := randomBytes(10 << 20)
	files := map[string][]byte{
		"checkpoints/c-1/model-ckpt.pth": ckpt, "checkpoints/c-1/training_metadata.json": []byte("{}"),
		"checkpoints/c-1/optimizer.pth":         ckpt,
		"checkpoints/c-1/deeper/tokenizer.json": []byte("no"), "checkpoints/c-1/tokenizer.json": []byte(`{"a":1}`),
	}
	commit := h.Commit("models", "org/model", files)
	take := func(n string) bool {
		return n == "model-ckpt.pth" || n == "training_metadata.json" || n == "tokenizer.json"
	}
	// Half of it is there from an attempt that was cut off.
	blobs := filepath.Join(home, "hub", "models--org--model", "blobs")
	if err := os.MkdirAll(blobs, 0o777); err != nil {
		t.Fatal(err)
	}
	info, err := store.Stat(t.Context(), "hf://org/model/checkpoints/c-1/model-ckpt.pth")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(blobs, info.Version+".incomplete"), ckpt[:7<<20], 0o666); err != nil {
		t.Fatal(err)
	}
	for _, p := range proxies {
		p.Take()
	}
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			dir, pinned, err := store.Download(t.Context(), "hf://org/model/checkpoints/c-1", take, nil)
			if err != nil || pinned != "hf://org/model@"+commit+"/checkpoints/c-1" ||
				dir != filepath.Join(home, "hub", "models--org--model", "snapshots", commit, "checkpoints", "c-1") {
				t.Errorf("%s, %s (%v)", dir, pinned, err)
			}
		})
	}
	both.Wait()
	sent := int64(0)
	for _, p := range proxies {
		sent += storetest.Bytes(p.Take())
	}
	if sent > 8<<20 {
		t.Errorf("%d bytes came, where 3 MB were missing", sent)
	}
	dir := filepath.Join(home, "hub", "models--org--model", "snapshots", commit, "checkpoints", "c-1")
	for n, want := range files {
		b, err := os.ReadFile(filepath.Join(dir, strings.TrimPrefix(n, "checkpoints/c-1/")))
		if take(strings.TrimPrefix(n, "checkpoints/c-1/")) != (err == nil) || err == nil && !bytes.Equal(b, want) {
			t.Errorf("%s: %d bytes (%v)", n, len(b), err)
		}
	}
	for name, want := range map[string][]byte{"refs/main": []byte(commit)} {
		if b, err := os.ReadFile(filepath.Join(home, "hub", "models--org--model", name)); err != nil ||
			!bytes.Equal(b, want) {
			t.Errorf("%s: %q (%v)", name, b, err)
		}
	}
	// The same again asks for no bytes; what a bad disk or server makes of it is found.
	h.Took()
	if _, _, err := store.Download(t.Context(), "hf://org/model/checkpoints/c-1", take, nil); err != nil {
		t.Fatal(err)
	}
	if took := strings.Join(h.Took(), "\n"); strings.Contains(took, "cdn") || strings.Contains(took, "resolve") {
		t.Errorf("asked again: %s", took)
	}
	blob := filepath.Join(blobs, info.Version)
	if err := errors.Join(os.Remove(blob), os.WriteFile(blob+".incomplete", make([]byte, 1<<20), 0o666)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.Download(t.Context(), "hf://org/model/checkpoints/c-1", take, nil); err == nil ||
		!strings.Contains(err.Error(), "digest") {
		t.Fatalf("a damaged part: %v", err)
	}
	if _, _, err := store.Download(t.Context(), "hf://org/model/checkpoints/c-1", take, nil); err != nil {
		t.Fatalf("after a damaged part: %v", err)
	}
	t.Run("read by the hub's own library", func(t *testing.T) { pythonReads(t, home, commit) })
}

// pythonReads asks the hub's own library what is in the cache.
func pythonReads(t *testing.T, home, commit string) {
	t.Helper()
	cmd := exec.Command(pythontest.With(t, "huggingface_hub"), "-c", `
from huggingface_hub import scan_cache_dir, try_to_load_from_cache
p = try_to_load_from_cache("org/model", "checkpoints/c-1/model-ckpt.pth", revision="main")
assert p and "`+commit+`" in p, p
info = scan_cache_dir()
assert not info.warnings, info.warnings
(repo,) = info.repos
assert repo.repo_id == "org/model" and repo.nb_files == 3, repo
`)
	cmd.Env = append(os.Environ(), "HF_HOME="+home, "HF_HUB_CACHE="+filepath.Join(home, "hub"), "HF_HUB_OFFLINE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("the Python library: %v: %s", err, out)
	}
}
