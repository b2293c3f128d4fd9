package storetest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Hub is a stand-in for the Hugging Face hub: its revision, tree and resolve
// APIs, with large files on another host behind signed links that run out.
type Hub struct {
	URL, CDN string
	// Token opens repositories whose name begins with private.
	Token string
	// LinkUses is how often a link may be used; 0: always.
	LinkUses int

	t     testing.TB
	mu    sync.Mutex
	repos map[string]*repo // kind/owner/name
	links map[string]*cdnLink
	log   []string
}

type repo struct {
	heads   map[string]string // branch to commit
	commits map[string]map[string][]byte
}

type cdnLink struct {
	body []byte
	uses int
}

// NewHub starts one and sets HF_ENDPOINT, HF_HOME and the like for the test. via
// wraps its two servers, if not nil, and gives their addresses.
func NewHub(t testing.TB, via func(url string) string) *Hub {
	h := &Hub{t: t, Token: "hf_not_a_secret", repos: map[string]*repo{}, links: map[string]*cdnLink{}}
	api, cdn := httptest.NewServer(http.HandlerFunc(h.api)), httptest.NewServer(http.HandlerFunc(h.cdn))
	t.Cleanup(api.Close)
	t.Cleanup(cdn.Close)
	h.URL, h.CDN = api.URL, cdn.URL
	if via != nil {
		h.URL, h.CDN = via(api.URL), via(cdn.URL)
	}
	Setenv(t, h.Env(t))
	return h
}

// Env is what reaches the hub.
func (h *Hub) Env(t testing.TB) map[string]string {
	return map[string]string{
		"HF_ENDPOINT": h.URL, "HF_HOME": t.TempDir(), "HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "", "HF_TOKEN_PATH": "",
		"HF_HUB_CACHE":          "",
		"HUGGINGFACE_HUB_CACHE": "",
	}
}

// Commit makes files a repository's newest commit on main and gives its id. kind
// is models or datasets.
func (h *Hub) Commit(kind, name string, files map[string][]byte) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := kind + "/" + name
	if h.repos[key] == nil {
		h.repos[key] = &repo{heads: map[string]string{}, commits: map[string]map[string][]byte{}}
	}
	r := h.repos[key]
	sum := sha1.Sum(fmt.Appendf(nil, "%s %d", key, len(r.commits)))
	id := hex.EncodeToString(sum[:])
	r.heads["main"], r.commits[id] = id, files
	return id
}

// Took gives what was asked of the hub since the last Took: method, host, path.
func (h *Hub) Took() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.log
	h.log = nil
	return l
}

func isLFS(name string) bool {
	return strings.HasSuffix(name, ".parquet") || strings.HasSuffix(name, ".pth")
}

func gitID(b []byte) string {
	s := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(b)), b...))
	return hex.EncodeToString(s[:])
}

func lfsID(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("X-Error-Code", code)
	w.WriteHeader(status)
}

func (h *Hub) api(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, r.Method+" api "+r.URL.Path)
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	api := parts[0] == "api"
	if api {
		parts = parts[1:]
	}
	kind := "models"
	if parts[0] == "datasets" || parts[0] == "models" {
		kind, parts = parts[0], parts[1:]
	}
	if len(parts) < 4 {
		refuse(w, http.StatusNotFound, "")
		return
	}
	name, verb, rev, path := parts[0]+"/"+parts[1], parts[2], parts[3], strings.Join(parts[4:], "/")
	rp := h.repos[kind+"/"+name]
	authorized := r.Header.Get("Authorization") == "Bearer "+h.Token
	switch {
	case rp == nil || strings.HasPrefix(parts[1], "private") && !authorized:
		refuse(w, http.StatusUnauthorized, "RepoNotFound")
		return
	case strings.HasPrefix(parts[1], "gated") && !authorized:
		refuse(w, http.StatusForbidden, "GatedRepo")
		return
	}
	if id, ok := rp.heads[rev]; ok {
		rev = id
	}
	files, ok := rp.commits[rev]
	if !ok {
		refuse(w, http.StatusNotFound, "RevisionNotFound")
		return
	}
	switch verb {
	case "revision":
		_ = json.NewEncoder(w).Encode(map[string]any{"sha": rev, "id": name})
	case "tree":
		h.tree(w, r, files, path)
	case "resolve":
		h.resolve(w, r, files, rev, path)
	default:
		refuse(w, http.StatusNotFound, "")
	}
}

const treePage = 3

func (h *Hub) tree(w http.ResponseWriter, r *http.Request, files map[string][]byte, path string) {
	var names []string
	for n := range files {
		if path == "" || strings.HasPrefix(n, path+"/") {
			names = append(names, n)
		}
	}
	if len(names) == 0 && path != "" {
		refuse(w, http.StatusNotFound, "EntryNotFound")
		return
	}
	slices.Sort(names)
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	to := min(from+treePage, len(names))
	if to < len(names) {
		q := r.URL.Query()
		q.Set("cursor", strconv.Itoa(to))
		w.Header().Set("Link", fmt.Sprintf(`<http://%s%s?%s>; rel="next"`, r.Host, r.URL.Path, q.Encode()))
	}
	out := []map[string]any{{"type": "directory", "oid": "x", "size": 0, "path": "somewhere"}}
	for _, n := range names[from:to] {
		b := files[n]
		e := map[string]any{"type": "file", "oid": gitID(b), "size": len(b), "path": n}
		if isLFS(n) {
			e["lfs"] = map[string]any{"oid": lfsID(b), "size": len(b), "pointerSize": 130}
		}
		out = append(out, e)
	}
	_ = json.NewEncoder(w).Encode(out)
}

func (h *Hub) resolve(w http.ResponseWriter, r *http.Request, files map[string][]byte, commit, path string) {
	b, ok := files[path]
	if !ok {
		refuse(w, http.StatusNotFound, "EntryNotFound")
		return
	}
	w.Header().Set("X-Repo-Commit", commit)
	if !isLFS(path) {
		w.Header().Set("ETag", `"`+gitID(b)+`"`)
		http.ServeContent(w, r, path, time.Time{}, bytes.NewReader(b))
		return
	}
	id := fmt.Sprintf("/%s-%d", lfsID(b), len(h.links))
	h.links[id] = &cdnLink{body: b}
	w.Header().Set("X-Linked-Etag", `"`+lfsID(b)+`"`)
	w.Header().Set("X-Linked-Size", strconv.Itoa(len(b)))
	w.Header().Set("Location", h.CDN+id+"?X-Amz-Signature=5ec7e7")
	w.WriteHeader(http.StatusFound)
}

func (h *Hub) cdn(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.log = append(h.log, r.Method+" cdn "+r.URL.Path)
	l := h.links[r.URL.Path]
	if r.Header.Get("Authorization") != "" {
		h.t.Error("the hub's token was sent to another host")
	}
	if l == nil || r.URL.Query().Get("X-Amz-Signature") == "" || h.LinkUses > 0 && l.uses >= h.LinkUses {
		h.mu.Unlock()
		w.WriteHeader(http.StatusForbidden)
		return
	}
	l.uses++
	h.mu.Unlock()
	w.Header().Set("ETag", `"cdn-`+lfsID(l.body)[:8]+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(l.body))
}

// SetFile changes a file of main's commit in place, as no hub would.
func (h *Hub) SetFile(kind, name, path string, body []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repos[kind+"/"+name]
	r.commits[r.heads["main"]][path] = body
}
