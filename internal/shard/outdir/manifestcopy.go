package outdir

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/store"
)

// manifestCopy is a second copy of the manifest in OUT, compressed. gzip's
// checksum reports whether it is whole; so it reports whether the manifest is as it
// was written, and mends it.
const manifestCopy = ".surprisal.manifest.gz"

// ErrManifestChanged: the manifest has changed since it was written.
var ErrManifestChanged = errors.New("the manifest has changed since it was written")

// ErrNoCopy: the manifest is valid, and its second copy is missing or broken.
var ErrNoCopy = errors.New("the manifest's second copy is missing or broken")

func pack(b []byte) ([]byte, error) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err := w.Write(b)
	err = errors.Join(err, w.Close())
	return z.Bytes(), err
}

// readCopy gives the manifest's bytes from its second copy.
func readCopy(ctx context.Context, out string) ([]byte, error) {
	f, err := store.OpenFile(ctx, place.Join(out, manifestCopy))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(io.NewSectionReader(f, 0, min(f.Size, MaxManifestBytes)))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(z, MaxManifestBytes))
	if err != nil {
		return nil, err
	}
	if _, err := parseManifest(b); err != nil {
		return nil, err
	}
	return b, nil
}

// VerifyManifest holds out's manifest to its second copy and gives the one to
// trust. The error wraps ErrManifestChanged when the manifest is missing, broken
// or changed and the copy is given, ErrNoCopy when there is only the manifest,
// fs.ErrNotExist when there is neither.
func VerifyManifest(ctx context.Context, out string) (*score.Manifest, error) {
	copied, copyErr := readCopy(ctx, out)
	m, err := readManifest(ctx, place.Join(out, score.ManifestName)) // also of a folder that was moved
	if err != nil {
		err = fmt.Errorf("read manifest: %w", err)
	}
	switch {
	case copyErr != nil && err == nil:
		return m, fmt.Errorf("%w: %w", ErrNoCopy, copyErr)
	case copyErr != nil:
		return nil, err
	case err != nil:
		m, perr := parseManifest(copied)
		if perr != nil {
			return nil, perr
		}
		return m, fmt.Errorf("%w: %w", ErrManifestChanged, err)
	}
	b, err := readSmall(ctx, place.Join(out, score.ManifestName))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if !bytes.Equal(b, copied) {
		m, err := parseManifest(copied)
		if err != nil {
			return nil, err
		}
		return m, fmt.Errorf("%w: it differs from its second copy %s", ErrManifestChanged, manifestCopy)
	}
	return m, nil
}

// RestoreManifest mends what VerifyManifest found: the manifest from its copy, or
// the copy from the manifest.
func RestoreManifest(ctx context.Context, out string) error {
	copied, copyErr := readCopy(ctx, out)
	if copyErr == nil {
		return writeRoot(ctx, out, score.ManifestName, copied, true)
	}
	b, err := readSmall(ctx, place.Join(out, score.ManifestName))
	if err != nil {
		return fmt.Errorf("restore the manifest's copy: %w", err)
	}
	if _, err := parseManifest(b); err != nil {
		return fmt.Errorf("restore the manifest's copy: both it and the manifest are damaged: %w",
			errors.Join(err, copyErr, fs.ErrInvalid))
	}
	z, err := pack(b)
	if err != nil {
		return fmt.Errorf("restore the manifest's copy: %w", err)
	}
	return writeRoot(ctx, out, manifestCopy, z, true)
}
