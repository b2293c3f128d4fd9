package outdir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/store"
)

// MaxManifestBytes bounds a manifest; it is checked before one is read.
const MaxManifestBytes = 1 << 30

// WriteManifest writes out/_manifest.json whole or not at all, and only once:
// when there is one, it stays and the error wraps fs.ErrExist.
func WriteManifest(ctx context.Context, out string, m *score.Manifest) error {
	return writeManifest(ctx, out, m, false)
}

// ReplaceManifest writes out/_manifest.json over the one that is there, when a
// run takes in files that came later.
func ReplaceManifest(ctx context.Context, out string, m *score.Manifest) error {
	return writeManifest(ctx, out, m, true)
}

func writeManifest(ctx context.Context, out string, m *score.Manifest, replace bool) error {
	if err := m.Validate(); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if len(b) >= MaxManifestBytes {
		return fmt.Errorf("write manifest: %d bytes, more than %d: split the inputs over several runs", len(b),
			MaxManifestBytes)
	}
	b = append(b, '\n')
	copied, err := pack(b)
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	// A crash in between leaves the copy missing, or newer: never older.
	if replace {
		if err := writeRoot(ctx, out, manifestCopy, copied, true); err != nil {
			return err
		}
		return writeRoot(ctx, out, score.ManifestName, b, true)
	}
	if err := writeRoot(ctx, out, score.ManifestName, b, false); err != nil {
		return err
	}
	return writeRoot(ctx, out, manifestCopy, copied, true)
}

// ErrMoved: a manifest names another output folder than the one it lies in.
var ErrMoved = errors.New("it was moved or copied here")

// ReadManifest reads and validates out/_manifest.json; the error wraps
// fs.ErrNotExist when there is none, and ErrMoved when it is another folder's:
// continuing it would write there.
func ReadManifest(ctx context.Context, out string) (*score.Manifest, error) {
	path := place.Join(out, score.ManifestName)
	m, err := readManifest(ctx, path)
	if err == nil && !samePlace(m.Out, out) {
		err = fmt.Errorf("%w: it belongs to %s: move the folder back there, or score into a new one", ErrMoved, m.Out)
	}
	if named := (*store.Error)(nil); errors.As(err, &named) { // it tells the path
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", path, err)
	}
	return m, nil
}

// samePlace reports whether two names are of one folder.
func samePlace(a, b string) bool {
	if place.IsURL(a) || place.IsURL(b) {
		x, xerr := place.Resolve(a)
		y, yerr := place.Resolve(b)
		return xerr == nil && yerr == nil && strings.TrimSuffix(x, "/") == strings.TrimSuffix(y, "/")
	}
	x, xerr := os.Stat(a)
	y, yerr := os.Stat(b)
	return xerr == nil && yerr == nil && os.SameFile(x, y)
}

func readManifest(ctx context.Context, path string) (*score.Manifest, error) {
	b, err := readSmall(ctx, path)
	if err != nil {
		return nil, err
	}
	return parseManifest(b)
}

// readSmall reads a file of at most MaxManifestBytes.
func readSmall(ctx context.Context, path string) ([]byte, error) {
	f, err := store.OpenFile(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size > MaxManifestBytes {
		return nil, fmt.Errorf("%d bytes, at most %d are supported", f.Size, MaxManifestBytes)
	}
	return io.ReadAll(io.NewSectionReader(f, 0, f.Size))
}

func parseManifest(b []byte) (*score.Manifest, error) {
	// The version first, so that another program's manifest says so rather than
	// which of its fields is unknown.
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, err
	}
	m := new(score.Manifest)
	d := json.NewDecoder(bytes.NewReader(b))
	if v.Version == score.FormatVersion {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(m); err != nil {
		return nil, err
	}
	return m, m.Validate()
}

// WriteSuccess writes out/_SUCCESS, replacing one that is there.
func WriteSuccess(ctx context.Context, out string, body []byte) error {
	return writeRoot(ctx, out, score.SuccessName, body, true)
}

// ReadSuccess reads out/_SUCCESS; the error wraps fs.ErrNotExist when there is none.
func ReadSuccess(ctx context.Context, out string) ([]byte, error) {
	return readSmall(ctx, place.Join(out, score.SuccessName))
}

// RemoveSuccess removes out/_SUCCESS; there being none is no error.
func RemoveSuccess(ctx context.Context, out string) error {
	if place.IsURL(out) {
		return store.Remove(ctx, place.Join(out, score.SuccessName))
	}
	if err := os.Remove(filepath.Join(out, score.SuccessName)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove %s: %w", score.SuccessName, err)
	}
	return nil
}

func writeRoot(ctx context.Context, out, name string, body []byte, replace bool) error {
	if place.IsURL(out) {
		_, err := store.PutBytes(ctx, place.Join(out, name), body, store.Condition{Absent: !replace})
		if err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		return nil
	}
	o, err := openOut(ctx, out)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer o.Close()
	if err := o.writeFile(name, body, replace); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Join(out, name), err)
	}
	return nil
}
