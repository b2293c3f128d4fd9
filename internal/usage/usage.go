// Package usage has the error of a person's mistake, as opposed to one of the
// program or its surroundings.
package usage

import "fmt"

// Error says in one line what is wrong with a command and how to correct it.
// Commands print it and exit with 2.
type Error struct{ Err error }

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf is fmt.Errorf for an Error.
func Errorf(format string, a ...any) error { return &Error{fmt.Errorf(format, a...)} }
