package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Digest identifies the model in a checkpoint folder: "sha256:" and the SHA-256,
// in hex, of the two lines
//
//	<SHA-256 of model-ckpt.pth>  model-ckpt.pth
//	<SHA-256 of training_metadata.json>  training_metadata.json
//
// each ended by a newline, so that in the folder `sha256sum model-ckpt.pth
// training_metadata.json | sha256sum` gives the same. The files' digests are
// remembered in the user's cache folder, so that a file is read once.
func Digest(ctx context.Context, dir string) (string, error) { return newDigester().folder(ctx, dir) }

// TokenizerDigest identifies a tokenizer.json together with the
// tokenizer_config.json beside it, if there is one, which may name the beginning
// token. It is made as Digest is, of one line or two, under those names.
func TokenizerDigest(ctx context.Context, path string) (string, error) {
	return newDigester().tokenizer(ctx, path)
}

func (d *digester) tokenizer(ctx context.Context, path string) (string, error) {
	config := filepath.Join(filepath.Dir(path), tokenizerConfigName)
	lines := []digestLine{{tokenizerName, path}}
	if _, err := os.Stat(config); err == nil {
		lines = append(lines, digestLine{tokenizerConfigName, config})
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("digest %s: %w", config, unwrapPath(err))
	}
	return d.lines(ctx, lines)
}

const (
	tokenizerName       = "tokenizer.json"
	tokenizerConfigName = "tokenizer_config.json"
)

const digestPrefix = "sha256:"

// settleTime is how long a file must have been left alone for its digest to be
// remembered: a change within the clock's grain of the last would not show.
const settleTime = 2 * time.Second

type digester struct {
	cache digestCache
	now   func() time.Time
	reads int // files read through, for tests
}

func newDigester() *digester {
	d := &digester{now: time.Now}
	if base, err := os.UserCacheDir(); err == nil {
		d.cache = digestCache{dir: filepath.Join(base, "surprisal", "digests")}
	}
	return d
}

func (d *digester) folder(ctx context.Context, dir string) (string, error) {
	return d.lines(ctx, []digestLine{
		{CheckpointName, filepath.Join(dir, CheckpointName)}, {MetadataName, filepath.Join(dir, MetadataName)},
	})
}

// digestLine is a file under the name that it has in a digest of several.
type digestLine struct{ name, path string }

func (d *digester) lines(ctx context.Context, files []digestLine) (string, error) {
	h := sha256.New()
	for _, f := range files {
		sum, err := d.file(ctx, f.path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s  %s\n", sum[len(digestPrefix):], f.name)
	}
	return digestPrefix + hex.EncodeToString(h.Sum(nil)), nil
}

// file gives "sha256:" and the SHA-256, in hex, of a regular file's bytes. It
// is remembered under the user's cache folder and taken from there while path,
// device, inode, size, modification and change time are the same. A cache that
// can't be read or written costs time, never an error.
func (d *digester) file(ctx context.Context, path string) (string, error) {
	sum, err := d.digest(ctx, path)
	if err != nil {
		return "", fmt.Errorf("digest %s: %w", path, err)
	}
	return sum, nil
}

func (d *digester) digest(ctx context.Context, path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	// Asked before opening: opening a pipe would block.
	if st, err := os.Stat(path); err != nil {
		return "", unwrapPath(err)
	} else if !st.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", unwrapPath(err)
	}
	defer f.Close()
	key, err := identify(path, f)
	if err != nil {
		return "", err
	}
	if sum, ok := d.cache.get(key); ok {
		return sum, nil
	}
	d.reads++
	h := sha256.New()
	if err := readAll(ctx, h, f); err != nil {
		return "", unwrapPath(err)
	}
	after, err := identify(path, f)
	if err != nil {
		return "", err
	}
	if after != key {
		return "", errors.New("the file changed while being read")
	}
	sum := digestPrefix + hex.EncodeToString(h.Sum(nil))
	if age := d.now().UnixNano() - max(key.MTime, key.CTime); age > int64(settleTime) {
		d.cache.put(key, sum)
	}
	return sum, nil
}

// readAll writes what r has to w, and reads the next piece while w takes one.
func readAll(ctx context.Context, w io.Writer, r io.Reader) error {
	type piece struct {
		b   []byte
		err error
	}
	const pieces, size = 3, 1 << 20
	free, full := make(chan []byte, pieces), make(chan piece, pieces) // neither ever blocks its sender
	for range pieces {
		free <- make([]byte, size)
	}
	go func() {
		defer close(full)
		for b := range free {
			n, err := r.Read(b)
			full <- piece{b[:n], err}
			if err != nil {
				return
			}
		}
	}()
	defer func() {
		close(free)
		for range full { // r is not read any more when this returns
		}
	}()
	for p := range full {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := w.Write(p.b); err != nil {
			return err
		}
		if p.err == io.EOF {
			return nil
		}
		if p.err != nil {
			return p.err
		}
		free <- p.b[:size]
	}
	return nil
}

// identify is what tells f from any other file and from itself after a change.
func identify(path string, f *os.File) (fileKey, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileKey{}, err
	}
	return fileKey{Path: path, Device: uint64(st.Dev), Inode: st.Ino, Size: st.Size, MTime: st.Mtim.Nano(),
		CTime: st.Ctim.Nano()}, nil
}

// unwrapPath drops the path from an error that will be given it anyway.
func unwrapPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// IsFile tells whether a file of this name in a checkpoint's folder is read.
func IsFile(name string) bool {
	return name == CheckpointName || name == MetadataName || name == tokenizerName || name == tokenizerConfigName
}

// BesideTokenizer are the files beside a tokenizer.json that are read with it.
func BesideTokenizer() []string { return []string{tokenizerConfigName} }
