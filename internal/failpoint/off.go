//go:build !failpoints

package failpoint

// Enabled tells whether failpoints are compiled in.
const Enabled = false

// Hit does nothing.
func Hit(string) error { return nil }
