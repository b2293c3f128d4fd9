// Package long says which tests are left to CI. SURPRISAL_TEST_LONG=1 runs what `make
// test` leaves out because it takes minutes and rarely finds what the rest doesn't.
package long

import (
	"os"
	"testing"
)

// Wanted is whether everything is to run.
var Wanted = os.Getenv("SURPRISAL_TEST_LONG") == "1"

// Skip skips the test unless everything is to run.
func Skip(t testing.TB, why string) {
	t.Helper()
	if !Wanted {
		t.Skip("SURPRISAL_TEST_LONG=1 runs it: " + why)
	}
}
