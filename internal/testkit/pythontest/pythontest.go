// Package pythontest finds a Python for tests that compare with its libraries.
package pythontest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// With gives a Python that has the modules: that of `make python`, or the machine's.
// Where there is none the test is skipped, and fails if SURPRISAL_REQUIRE_PYTHON is
// set.
func With(t testing.TB, modules ...string) string {
	t.Helper()
	for _, python := range []string{made(), "python3"} {
		if python != "" && exec.Command(python, "-c", "import "+strings.Join(modules, ", ")).Run() == nil {
			return python
		}
	}
	const require = "SURPRISAL_REQUIRE_PYTHON"
	say := t.Skipf
	if os.Getenv(require) != "" {
		say = t.Fatalf
	}
	say("SKIPPED: no python3 with %s: make python", strings.Join(modules, ", "))
	return ""
}

// made is where `make python` puts one: in .build beside go.mod.
func made() string {
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, ".build", "python", "bin", "python3")
		}
		dir = filepath.Dir(dir)
	}
	return ""
}
