package serve

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"path"
	"strings"
	"unicode/utf8"
)

// file is an embedded one, as it is sent.
type file struct {
	data, packed []byte
	kind, tag    string
}

func newFile(name string) (file, error) {
	b, err := assets.ReadFile("assets/" + name)
	if err != nil {
		return file{}, err
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return file{}, err
	}
	if _, err := z.Write(b); err != nil {
		return file{}, err
	}
	if err := z.Close(); err != nil {
		return file{}, err
	}
	sum := sha256.Sum256(b)
	return file{data: b, packed: packed.Bytes(), kind: mime.TypeByExtension(path.Ext(name)),
		tag: hex.EncodeToString(sum[:8])}, nil
}

// asset sends an embedded file. Its name contains its digest, so browsers may cache it.
func (s *Server) asset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if name == "" {
		name = "favicon.svg"
	}
	f, ok := s.files[name]
	if !ok {
		s.nothing(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Vary", "Accept-Encoding")
	if r.URL.Query().Get("v") == f.tag {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	body := f.data
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.packed
	}
	_, _ = w.Write(body) // the client is gone
}

// index sends the page with the current state in it, so that it is drawn at once.
func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	st, _ := s.current()
	first, err := json.Marshal(s.view(st, query{})) // < is escaped in it
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	// Slots are filled in one pass. Not html/template: see internal/report's markup.
	slots := strings.NewReplacer("{{Style}}", string(s.files["app.css"].data), "{{Script}}", s.files["app.js"].tag,
		"{{First}}", string(first))
	_, _ = slots.WriteString(w, s.page) // the client is gone
}

func (s *Server) nothing(w http.ResponseWriter, r *http.Request) {
	refuse(w, http.StatusNotFound, "not found: "+clip(r.URL.Path, 120))
}

func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // the client is gone
}

// refusal is the body of a refused request.
type refusal struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, code int, why string) {
	b, _ := json.Marshal(refusal{why}) // a string
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // the client is gone
}

// fail answers with an error in one line.
func fail(w http.ResponseWriter, err error) { refuse(w, codeOf(err), oneLine(err.Error())) }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// clip bounds a text that came from elsewhere.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return fmt.Sprint(s[:n], "…")
}
