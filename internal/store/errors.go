package store

import (
	"errors"
	"io/fs"
)

// The errors that callers decide on. fs.ErrNotExist and fs.ErrExist are wrapped
// too, for what they say.
var (
	// ErrChanged: the file is no longer the one that was planned.
	ErrChanged = errors.New("the file has changed since the run was planned")
	// ErrDenied: there are no credentials, or they don't suffice.
	ErrDenied = fs.ErrPermission
	// ErrUnsupported: the store can't do that.
	ErrUnsupported = errors.New("not supported there")

	errNotRegular = errors.New("it is not a regular file")
)
