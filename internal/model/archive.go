package model

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds of a zip's directory; the 1.3B checkpoint's takes about 50 KB.
const maxZipDirectory = 16 << 20 // bytes

// container is an opened checkpoint file: its pickled object and its storages.
type container struct {
	root any
	// storage gives a whole storage's bytes in place.
	storage func(key string) ([]byte, error)
}

// openContainer finds out what kind of file data is.
func openContainer(data []byte) (container, error) {
	switch {
	case len(data) == 0:
		return container{}, errors.New("the file is empty")
	case bytes.HasPrefix(data, []byte("PK")):
		return openZip(data)
	case data[0] == 0x80:
		return openLegacy(data)
	case len(data) > 262 && string(data[257:262]) == "ustar":
		return container{}, errors.New("tar checkpoint from torch before 0.2: save it again with a newer torch")
	}
	return container{}, fmt.Errorf("not a checkpoint of torch.save: it starts with %q",
		clip(string(data[:min(len(data), 16)]), 16))
}

// openZip reads torch.save's zip: <name>/data.pkl and <name>/data/<key>, stored.
func openZip(data []byte) (container, error) {
	z, err := zip.NewReader(&directoryReader{data: data, left: maxZipDirectory}, int64(len(data)))
	switch {
	case errors.Is(err, errDirectory):
		return container{}, err
	case errors.Is(err, zip.ErrFormat):
		return container{}, errors.New("zip: directory missing or damaged: the file is truncated or not a checkpoint")
	case err != nil:
		return container{}, fmt.Errorf("zip: %s", clip(err.Error(), 100))
	}
	files := make(map[string]*zip.File, len(z.File))
	prefix, found := "", false
	for _, f := range z.File {
		if files[f.Name] != nil {
			return container{}, fmt.Errorf("zip: duplicate entry %q", clip(f.Name, 80))
		}
		files[f.Name] = f
		if p, ok := strings.CutSuffix(f.Name, "/data.pkl"); ok && !strings.Contains(p, "/") {
			if found {
				return container{}, errors.New("zip: more than one data.pkl")
			}
			prefix, found = p+"/", true
		}
	}
	if !found {
		return container{}, errors.New("zip: no data.pkl: not a checkpoint of torch.save")
	}
	read := func(name string) ([]byte, error) {
		f := files[prefix+name]
		if f == nil {
			return nil, fmt.Errorf("zip: entry %q is missing", clip(prefix+name, 80))
		}
		return zipBytes(data, f)
	}
	if files[prefix+"byteorder"] != nil {
		b, err := read("byteorder")
		if err != nil {
			return container{}, err
		}
		if string(b) != "little" {
			return container{}, fmt.Errorf("zip: byte order is %q, must be little", clip(string(b), 16))
		}
	}
	b, err := read("data.pkl")
	if err != nil {
		return container{}, err
	}
	root, _, err := unpickle(b, func(*storageRef) {})
	if err != nil {
		return container{}, err
	}
	return container{root: root, storage: func(key string) ([]byte, error) { return read("data/" + key) }}, nil
}

// zipBytes is an entry's bytes in place.
func zipBytes(data []byte, f *zip.File) ([]byte, error) {
	if f.Method != zip.Store || f.Flags&1 != 0 || f.CompressedSize64 != f.UncompressedSize64 {
		return nil, fmt.Errorf("zip: entry %q is compressed or encrypted and cannot be mapped: "+
			"write the file with torch.save", clip(f.Name, 80))
	}
	off, err := f.DataOffset()
	if err != nil {
		return nil, fmt.Errorf("zip: entry %q: %s", clip(f.Name, 80), clip(err.Error(), 60))
	}
	if off < 0 || off > int64(len(data)) || f.UncompressedSize64 > uint64(int64(len(data))-off) {
		return nil, fmt.Errorf("zip: entry %q ends after the end of the file: the file is truncated", clip(f.Name, 80))
	}
	return data[off : off+int64(f.UncompressedSize64)], nil
}

var errDirectory = fmt.Errorf("zip: directory larger than %d bytes", maxZipDirectory)

// directoryReader reads from data until left bytes were read, so that a file
// that is all directory can't take memory in proportion.
type directoryReader struct {
	data []byte
	left int
}

// ReadAt implements io.ReaderAt.
func (r *directoryReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(r.data)) {
		return 0, io.EOF
	}
	n := copy(p, r.data[off:])
	if r.left -= n; r.left < 0 {
		return 0, errDirectory
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
