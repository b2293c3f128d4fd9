//go:build unix

package outdir

import (
	"errors"
	"syscall"
)

const errInvalid = syscall.EINVAL

// unsupported reports whether a file system can't do what it was asked. EPERM is
// what Linux says of hard links on FAT, and of hard links to others' files.
func unsupported(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EMLINK)
}
