package shard

import (
	"errors"

	"surprisal/internal/store"
)

// The sentinel errors. All are permanent: a second try of the same job gives
// the same. Errors that wrap none of them (a disk that fails, a file that is
// gone) may pass.
var (
	// ErrInputChanged: the file is no longer the one that was planned.
	ErrInputChanged = store.ErrChanged
	// ErrConflict: another file with other content has the output's name.
	ErrConflict = errors.New("another output has this name")
	// ErrRows: what was written is not one score for each row of the job, in order.
	ErrRows = errors.New("scores are not the job's rows")
)
