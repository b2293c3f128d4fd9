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
	// ErrCorrupt: the file's bytes are not valid parquet, or not what its footer says,
	// or can't be decompressed.
	ErrCorrupt = errors.New("corrupt file")
	// ErrColumn: a column that was asked for is missing or has an unusable type.
	ErrColumn = errors.New("unusable column")
	// ErrConflict: another file with other content has the output's name.
	ErrConflict = errors.New("another output has this name")
	// ErrRows: what was written is not one score for each row of the job, in order.
	ErrRows = errors.New("scores are not the job's rows")
)
