package model

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
)

// fileKey is a file at a moment. Times are nanoseconds since 1970. The change
// time can't be set from outside, so a restored modification time does not hide
// a change.
type fileKey struct {
	Path   string `json:"path"`
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Size   int64  `json:"size"`
	MTime  int64  `json:"mtime_ns"`
	CTime  int64  `json:"ctime_ns"`
}

// digestCache keeps one small file a path, so that a changed file's entry is
// replaced. Without dir it keeps nothing.
type digestCache struct{ dir string }

type digestEntry struct {
	fileKey
	Digest string `json:"digest"`
}

func (c digestCache) name(path string) string {
	h := sha256.Sum256([]byte(path))
	return filepath.Join(c.dir, hex.EncodeToString(h[:16])+".json")
}

// get finds the digest of exactly this key. A damaged entry is no entry.
func (c digestCache) get(key fileKey) (string, bool) {
	if c.dir == "" {
		return "", false
	}
	b, err := readBounded(c.name(key.Path), 64<<10)
	if err != nil {
		return "", false
	}
	var e digestEntry
	if json.Unmarshal(b, &e) != nil || e.fileKey != key || !validDigest(e.Digest) {
		return "", false
	}
	return e.Digest, true
}

// put replaces the path's entry at once. Failure is nothing but a slower next time.
func (c digestCache) put(key fileKey, sum string) {
	if c.dir == "" || os.MkdirAll(c.dir, 0o700) != nil {
		return
	}
	b, err := json.Marshal(digestEntry{key, sum})
	if err != nil {
		return
	}
	f, err := os.CreateTemp(c.dir, ".new-*")
	if err != nil {
		return
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), c.name(key.Path))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
}

func validDigest(s string) bool {
	h, ok := strings.CutPrefix(s, digestPrefix)
	b, err := hex.DecodeString(h)
	return ok && err == nil && len(b) == sha256.Size
}
