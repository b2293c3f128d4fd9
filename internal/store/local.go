package store

import (
	"context"
	"fmt"
	"io/fs"
	"os"
)

// FileVersion is the version of a local file.
func FileVersion(st fs.FileInfo) string {
	return fmt.Sprintf("%d-%d", st.Size(), st.ModTime().UnixNano())
}

// openFile opens a local file as an Object.
func openFile(ctx context.Context, name string) (*Object, error) {
	f, st, err := openLocal(ctx, name)
	if err != nil {
		return nil, err
	}
	return ofFile(name, f, st), nil
}

// OfFile makes an Object of an open local file; Close closes it.
func OfFile(name string, f *os.File) (*Object, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return ofFile(name, f, st), nil
}

func ofFile(name string, f *os.File, st fs.FileInfo) *Object {
	return &Object{Info: Info{Name: name, Size: st.Size(), Version: FileVersion(st), Modified: st.ModTime()}, file: f}
}
