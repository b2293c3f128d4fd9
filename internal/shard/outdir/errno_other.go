//go:build !unix

package outdir

import (
	"errors"
	"io/fs"
)

const errInvalid = constError("invalid argument")

type constError string

func (e constError) Error() string { return string(e) }

func unsupported(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission)
}
