//go:build !unix

package embedded

// lockFile does nothing where the system has no flock.
func lockFile(string) (unlock func(), err error) { return func() {}, nil }
