package jobs

import (
	"errors"
	"os"
	"strings"
	"surprisal/internal/jobs/record"
	"syscall"
)

// Machine identifies the boot and the PID namespace in which this process's PID is
// valid; empty if they are unknown.
func Machine() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + space
}

// hasEnded reports whether the dispatcher's process has certainly exited, which only a
// process on the same machine can tell. A PID that is used again counts as running.
func hasEnded(d, me record.Dispatcher) bool {
	if d.Machine == "" || d.Machine != me.Machine || d.Host != me.Host || d.PID <= 0 {
		return false
	}
	p, err := os.FindProcess(d.PID)
	if err != nil {
		return false
	}
	defer func() { _ = p.Release() }()
	return errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone)
}
