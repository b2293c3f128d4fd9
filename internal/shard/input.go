package shard

import (
	"fmt"
	"io/fs"
	"os"

	"surprisal/internal/score"
)

// fileVersion is what Input.Version says of a file: it changes when the file does.
func fileVersion(st fs.FileInfo) string {
	return fmt.Sprintf("%d-%d", st.Size(), st.ModTime().UnixNano())
}

// openInput opens an input and checks that it is the file that was planned.
func openInput(in score.Input) (*os.File, error) {
	st, err := os.Stat(in.Path) // first: opening a named pipe would wait for ever
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: it is not a regular file any more", in.Path, ErrInputChanged)
	}
	f, err := os.Open(in.Path)
	if err != nil {
		return nil, err
	}
	if err := checkUnchanged(f, in); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkUnchanged(f *os.File, in score.Input) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() != in.Size || fileVersion(st) != in.Version {
		return fmt.Errorf("%s: %w: it was %s (size-mtime) and is %s", in.Path, ErrInputChanged, in.Version, fileVersion(st))
	}
	return nil
}
