package jobs

import (
	"errors"
	"os"
	"strings"
	"surprisal/internal/jobs/record"
	"syscall"
)

// Machine names the boot and the pid namespace in which this process's pid means
// something; empty where that can't be told.
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

// hasEnded reports whether the dispatcher's process is surely no more, as only one
// on its machine can tell. A pid that is used again counts as alive.
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
