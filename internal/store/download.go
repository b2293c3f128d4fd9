package store

import (
	"context"
	"crypto/sha1" //nolint:gosec // git's, for small files
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"surprisal/internal/place"
)

var hubVersion = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// hubCache is the folder in which the hub's own tools cache models and data sets.
func hubCache() string {
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if d := os.Getenv(name); d != "" {
			return d
		}
	}
	return filepath.Join(hubHome(), "hub")
}

// Download downloads the files directly in a folder of a hub repository whose names
// take accepts, and returns the local folder and the folder's URL with its commit. It
// uses the Python library's cache and layout, so neither program downloads what the other
// has. An interrupted download resumes, and each file's digest is verified. moved is called
// as bytes arrive.
func Download(ctx context.Context, dir string, take func(name string) bool, moved func()) (local, pinned string,
	err error) {
	if moved == nil {
		moved = func() {}
	}
	p, b, err := at(ctx, dir)
	if err != nil {
		return "", "", err
	}
	h, isHub := b.(*hub)
	if !isHub {
		return "", "", &Error{dir, "only local folders and hf:// are supported here", ErrUnsupported}
	}
	var commit string
	if err := retry(ctx, dir, func() (_ bool, err error) { commit, err = h.at(ctx); return false, err }); err != nil {
		return "", "", err
	}
	repo := filepath.Join(hubCache(), h.kind+"--"+strings.ReplaceAll(h.repo, "/", "--"))
	snapshot := filepath.Join(repo, "snapshots", commit)
	found := false
	for info, err := range List(ctx, dir) {
		if err != nil {
			return "", "", err
		}
		f, err := place.Parse(info.Name)
		if err != nil || path.Dir("/"+f.Key) != path.Clean("/"+p.Key) || !take(path.Base(f.Key)) {
			continue
		}
		found = true
		if err := h.cache(ctx, repo, snapshot, f.Key, info, moved); err != nil {
			return "", "", err
		}
	}
	if !found {
		return "", "", &Error{dir, "folder not found in the repository, or without a checkpoint", os.ErrNotExist}
	}
	if rev := h.root.Rev; rev != commit {
		if rev == "" {
			rev = "main"
		}
		if err := writeRef(filepath.Join(repo, "refs", filepath.FromSlash(rev)), commit); err != nil {
			return "", "", fmt.Errorf("download %s: %w", dir, err)
		}
	}
	return filepath.Join(snapshot, filepath.FromSlash(p.Key)), h.place(p.Key, commit).String(), nil
}

func writeRef(name, commit string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	temp := fmt.Sprintf("%s.%d.tmp", name, os.Getpid())
	if err := os.WriteFile(temp, []byte(commit), 0o666); err != nil {
		return err
	}
	return os.Rename(temp, name)
}

// cache makes snapshot/key a link to its blob, which it downloads if necessary.
func (h *hub) cache(ctx context.Context, repo, snapshot, key string, info Info, moved func()) error {
	if !hubVersion.MatchString(info.Version) {
		return &Error{info.Name, "the hub reports no digest for this file", nil}
	}
	blob := filepath.Join(repo, "blobs", info.Version)
	link := filepath.Join(snapshot, filepath.FromSlash(key))
	if err := errors.Join(os.MkdirAll(filepath.Dir(blob), 0o777), os.MkdirAll(filepath.Dir(link), 0o777)); err != nil {
		return fmt.Errorf("download %s: %w", info.Name, err)
	}
	unlock, err := lockBlob(ctx, filepath.Join(filepath.Dir(repo), ".locks", filepath.Base(repo), info.Version+".lock"),
		moved)
	if err != nil {
		return fmt.Errorf("download %s: %w", info.Name, err)
	}
	defer unlock()
	if st, err := os.Stat(blob); err != nil || st.Size() != info.Size {
		if err := h.fetchBlob(ctx, blob, key, info, moved); err != nil {
			return fmt.Errorf("download %w", err)
		}
	}
	to, err := filepath.Rel(filepath.Dir(link), blob)
	if err != nil {
		return err
	}
	if have, err := os.Readlink(link); err == nil && have == to {
		return nil
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("download %s: %w", info.Name, err)
	}
	if err := os.Symlink(to, link); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("download %s: %w", info.Name, err)
	}
	return nil
}

// fetchBlob downloads the missing part of a blob and verifies all of it.
func (h *hub) fetchBlob(ctx context.Context, blob, key string, info Info, moved func()) error {
	name := blob + ".incomplete"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return fmt.Errorf("%s: %w", info.Name, err)
	}
	defer f.Close()
	digest := sha256.New()
	if len(info.Version) == 40 {
		digest = sha1.New() //nolint:gosec // git's
		fmt.Fprintf(digest, "blob %d\x00", info.Size)
	}
	done, err := io.Copy(digest, io.LimitReader(&noting{f, moved}, info.Size))
	if err != nil {
		return fmt.Errorf("%s: %w", info.Name, err)
	}
	o := &Object{Info: info, bucket: h, key: key}
	buf := make([]byte, 8<<20)
	for done < info.Size {
		b := buf[:min(int64(len(buf)), info.Size-done)]
		if err := o.readRange(ctx, b, done); err != nil {
			return err
		}
		if _, err := f.WriteAt(b, done); err != nil {
			return fmt.Errorf("%s: %w", info.Name, err)
		}
		digest.Write(b)
		done += int64(len(b))
		moved()
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != info.Version {
		_ = os.Remove(name) // the next attempt starts over
		return &Error{info.Name, fmt.Sprintf("the download has digest %s, but the hub reports %s: try again", got,
			info.Version), nil}
	}
	if err := errors.Join(f.Truncate(info.Size), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", info.Name, err)
	}
	return os.Rename(name, blob)
}

// noting calls moved on each read.
type noting struct {
	r     io.Reader
	moved func()
}

func (n *noting) Read(b []byte) (int, error) {
	n.moved()
	return n.r.Read(b)
}

// DownloadFile is Download for one file; beside names others to download with it if they
// exist.
func DownloadFile(ctx context.Context, name string, beside []string, moved func()) (local, pinned string, err error) {
	p, err := place.Parse(name)
	if err != nil {
		return "", "", err
	}
	base := path.Base(p.Key)
	p.Key = strings.TrimPrefix(path.Dir("/"+p.Key), "/")
	dir, pinned, err := Download(ctx, p.String(), func(n string) bool {
		return n == base ||
			slices.Contains(beside, n)
	},
		moved)
	if err != nil {
		return "", "", err
	}
	return filepath.Join(dir, base), place.Join(pinned, base), nil
}
