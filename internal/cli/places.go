package cli

import (
	"surprisal/internal/place"
	"surprisal/internal/usage"
)

// Resolve turns what a person wrote for a flag, or for an argument where flag is
// empty, into a place; nothing stays nothing. Its error names no part of a URL that
// may be secret.
func Resolve(flag string, name *string) error {
	if *name == "" {
		return nil
	}
	abs, err := place.Resolve(*name)
	switch {
	case err == nil:
		*name = abs
		return nil
	case flag == "":
		return &usage.Error{Err: err}
	}
	return usage.Errorf("%s: %w", flag, err)
}
