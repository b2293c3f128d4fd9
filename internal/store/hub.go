package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"surprisal/internal/place"
)

// hub is a repository of the Hugging Face hub, pinned to the commit of its branch at the
// first request. A version is the sha256 of a large file, or git's id of a small one.
type hub struct {
	root     place.Place // with the given revision
	kind     string      // datasets or models
	repo     string      // OWNER/NAME
	endpoint *url.URL
	token    string
	client   *http.Client // follows no redirects

	mu     sync.Mutex
	commit string
	links  map[string]*link // by key
}

// link is the hub's redirect for a file's bytes: a signed URL that expires.
type link struct {
	url   string
	etag  string // that server's, for the same bytes
	fresh bool   // not used yet
}

var commitID = regexp.MustCompile(`^[0-9a-f]{40}$`)

// hubHome is the folder in which the hub's own tools keep token and cache.
func hubHome() string {
	if d := os.Getenv("HF_HOME"); d != "" {
		return d
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = os.TempDir()
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "huggingface")
}

func hubToken() string {
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if t := strings.TrimSpace(os.Getenv(name)); t != "" {
			return t
		}
	}
	file := os.Getenv("HF_TOKEN_PATH")
	if file == "" {
		file = filepath.Join(hubHome(), "token")
	}
	if b, err := os.ReadFile(file); err == nil && len(b) < 1<<12 {
		return strings.TrimSpace(string(b))
	}
	return ""
}

func openHub(root place.Place) (*hub, error) {
	endpoint := os.Getenv("HF_ENDPOINT")
	if endpoint == "" {
		endpoint = "https://huggingface.co"
	}
	u, err := url.Parse(strings.TrimSuffix(endpoint, "/"))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return nil, &Error{root.String(), "HF_ENDPOINT is not an http(s) URL of a server", nil}
	}
	h := &hub{root: root, kind: "models", repo: root.Host, endpoint: u, token: hubToken(), client: httpClient(),
		links: map[string]*link{}}
	if repo, ok := strings.CutPrefix(root.Host, "datasets/"); ok {
		h.kind, h.repo = "datasets", repo
	}
	h.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return h, nil
}

// place is the place of a key at a commit.
func (h *hub) place(key, commit string) place.Place {
	p := h.root.Join(key)
	p.Rev = commit
	return p
}

// do sends a request to the hub and follows redirects within it.
func (h *hub) do(ctx context.Context, method, address string, header http.Header) (*http.Response, error) {
	if header == nil {
		header = http.Header{}
	}
	if h.token != "" {
		header.Set("Authorization", "Bearer "+h.token)
	}
	for range 5 {
		resp, err := request(ctx, h.client, method, address, header)
		if err != nil {
			return nil, err
		}
		// A renamed repository: the same server, another path.
		to, err := resp.Location()
		if err != nil || to.Host != h.endpoint.Host || to.Scheme != h.endpoint.Scheme ||
			resp.Header.Get("X-Linked-Etag") != "" {
			return resp, nil
		}
		_ = resp.Body.Close()
		address = to.String()
	}
	return nil, &Error{h.root.String(), "the hub redirects in a loop", nil}
}

// error explains the hub's refusal.
func (h *hub) error(name string, resp *http.Response) error {
	what := resp.Header.Get("X-Error-Code")
	token := "set HF_TOKEN (https://huggingface.co/settings/tokens)"
	if h.token != "" {
		token = "the token in HF_TOKEN has no access to it"
	}
	switch {
	case what == "EntryNotFound":
		return &Error{name, "file not found in the repository", fs.ErrNotExist}
	case what == "RevisionNotFound":
		return &Error{name, "revision not found in the repository: check the part after @", fs.ErrNotExist}
	case what == "GatedRepo":
		return &Error{name, "the repository is gated: accept its terms on its page, and " + token, ErrDenied}
	case what == "RepoNotFound" || resp.StatusCode == http.StatusUnauthorized:
		return &Error{name, fmt.Sprintf("repository not found or private (HTTP %d): check the name; "+
			"if it is private, %s", resp.StatusCode, token), ErrDenied}
	case resp.StatusCode == http.StatusForbidden:
		return &Error{name, "access denied (HTTP 403): " + token, ErrDenied}
	}
	return statusError(name, resp.StatusCode, what, resp.Header)
}

const maxHubAnswer = 32 << 20

func (h *hub) json(ctx context.Context, name, address string, v any) (http.Header, error) {
	resp, err := h.do(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, h.error(name, resp)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxHubAnswer))
	if err != nil {
		return nil, networkError(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return nil, &Error{name, "unexpected response from the hub: check HF_ENDPOINT", nil}
	}
	return resp.Header, nil
}

// at returns the commit.
func (h *hub) at(ctx context.Context) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.commit != "" {
		return h.commit, nil
	}
	rev := h.root.Rev
	if rev == "" {
		rev = "main"
	}
	if commitID.MatchString(rev) {
		h.commit = rev
		return rev, nil
	}
	var answer struct {
		SHA string `json:"sha"`
	}
	_, err := h.json(ctx, h.root.String(), fmt.Sprintf("%s/api/%s/%s/revision/%s", h.endpoint, h.kind, h.repo,
		url.PathEscape(rev)), &answer)
	if err != nil {
		return "", err
	}
	if !commitID.MatchString(answer.SHA) {
		return "", &Error{h.root.String(), "the hub reports no commit: check HF_ENDPOINT", nil}
	}
	h.commit = answer.SHA
	return h.commit, nil
}

func (h *hub) resolveURL(key, commit string) string {
	kind := ""
	if h.kind == "datasets" {
		kind = "datasets/"
	}
	return fmt.Sprintf("%s/%s%s/resolve/%s/%s", h.endpoint, kind, h.repo, commit, escapePath(key))
}

// normalEtag is an etag in the form that the hub's own tools use.
func normalEtag(s string) string { return strings.Trim(strings.TrimPrefix(s, "W/"), `"`) }

func linkedEtag(header http.Header) string {
	if e := header.Get("X-Linked-Etag"); e != "" {
		return normalEtag(e)
	}
	return normalEtag(header.Get("ETag"))
}

func (h *hub) stat(ctx context.Context, key string) (Info, error) {
	commit, err := h.at(ctx)
	if err != nil {
		return Info{}, err
	}
	p := h.place(key, commit)
	resp, err := h.do(ctx, http.MethodHead, h.resolveURL(key, commit), nil)
	if err != nil {
		return Info{}, err
	}
	defer resp.Body.Close()
	info := Info{Name: p.String(), Size: resp.ContentLength, Version: linkedEtag(resp.Header)}
	switch {
	case resp.StatusCode/100 == 3:
		if _, err := fmt.Sscan(resp.Header.Get("X-Linked-Size"), &info.Size); err != nil {
			info.Size = -1
		}
	case resp.StatusCode != http.StatusOK:
		return Info{}, h.error(p.String(), resp)
	}
	if info.Size < 0 || info.Version == "" {
		return Info{}, &Error{p.String(), "the hub reports no size or etag for this file: check HF_ENDPOINT", nil}
	}
	return info, nil
}

// get reads from the hub's link; an expired link is renewed once.
func (h *hub) get(ctx context.Context, want Info, key string, off, n int64) (io.ReadCloser, error) {
	h.mu.Lock()
	l := h.links[key]
	h.mu.Unlock()
	if l == nil {
		commit, err := h.at(ctx)
		if err != nil {
			return nil, err
		}
		resp, err := h.do(ctx, http.MethodGet, h.resolveURL(key, commit), rangeHeader(off, n))
		if err != nil {
			return nil, err
		}
		if v := linkedEtag(resp.Header); (ok(resp) || resp.StatusCode/100 == 3) && v != want.Version {
			_ = resp.Body.Close()
			return nil, changed(want, v, want.Size)
		}
		if resp.StatusCode/100 != 3 {
			if !ok(resp) {
				defer resp.Body.Close()
				return nil, h.error(want.Name, resp)
			}
			return body(resp, want, off, n)
		}
		_ = resp.Body.Close()
		to, err := resp.Location()
		if err != nil || to.Scheme != "https" && to.Scheme != h.endpoint.Scheme {
			return nil, &Error{want.Name, "the hub redirects to a URL that is not https", nil}
		}
		l = &link{url: to.String(), fresh: true}
		h.mu.Lock()
		h.links[key] = l
		h.mu.Unlock()
	}
	// Send no token: this is another server.
	resp, err := request(ctx, h.client, http.MethodGet, l.url, rangeHeader(off, n))
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	fresh := l.fresh
	if ok(resp) {
		l.fresh = false
		if l.etag == "" {
			l.etag = resp.Header.Get("ETag")
		}
	}
	etag := l.etag
	if !ok(resp) && h.links[key] == l {
		delete(h.links, key)
	}
	h.mu.Unlock()
	switch {
	case ok(resp) && etag != "" && resp.Header.Get("ETag") != etag:
		_ = resp.Body.Close()
		return nil, changed(want, resp.Header.Get("ETag"), want.Size)
	case !ok(resp) && !fresh &&
		(resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusUnauthorized ||
			resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone):
		_ = resp.Body.Close()
		return nil, &transient{err: errors.New("the hub's link to the file has expired")}
	case resp.StatusCode/100 == 3:
		_ = resp.Body.Close()
		return nil, &Error{want.Name, "the hub redirects twice, which is not supported", ErrUnsupported}
	}
	return body(resp, want, off, n)
}

// hubEntry is an entry of a tree listing.
type hubEntry struct {
	Type string `json:"type"`
	OID  string `json:"oid"`
	Size int64  `json:"size"`
	Path string `json:"path"`
	LFS  *struct {
		OID  string `json:"oid"`
		Size int64  `json:"size"`
	} `json:"lfs"`
}

var nextLink = regexp.MustCompile(`<([^>]*)>\s*;\s*rel="?next"?`)

func (h *hub) page(ctx context.Context, prefix, token string) ([]Info, string, error) {
	commit, err := h.at(ctx)
	if err != nil {
		return nil, "", err
	}
	address := fmt.Sprintf("%s/api/%s/%s/tree/%s", h.endpoint, h.kind, h.repo, commit)
	if p := strings.TrimSuffix(prefix, "/"); p != "" {
		address += "/" + escapePath(p)
	}
	q := url.Values{"recursive": {"true"}, "expand": {"false"}}
	if token != "" {
		q.Set("cursor", token)
	}
	var entries []hubEntry
	name := h.place(strings.TrimSuffix(prefix, "/"), commit).String()
	header, err := h.json(ctx, name, address+"?"+q.Encode(), &entries)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil // no such folder
	}
	if err != nil {
		return nil, "", err
	}
	infos := make([]Info, 0, len(entries))
	for _, e := range entries {
		if e.Type != "file" || e.Size < 0 || !strings.HasPrefix(e.Path, prefix) {
			continue
		}
		info := Info{Name: h.place(e.Path, commit).String(), Size: e.Size, Version: e.OID}
		if e.LFS != nil {
			info.Size, info.Version = e.LFS.Size, e.LFS.OID
		}
		infos = append(infos, info)
	}
	for _, l := range header.Values("Link") {
		if m := nextLink.FindStringSubmatch(l); m != nil {
			if u, err := url.Parse(m[1]); err == nil {
				if next := u.Query().Get("cursor"); next != token {
					return infos, next, nil
				}
			}
		}
	}
	return infos, "", nil
}
