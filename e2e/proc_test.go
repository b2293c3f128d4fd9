package e2e

import (
	"os"
	"strconv"
	"strings"
)

// procInfo reads a process's parent and arguments; zeros when it is none, or gone.
func procInfo(name string) (pid, parent int, args string) {
	pid, err := strconv.Atoi(name)
	if err != nil {
		return 0, 0, ""
	}
	stat, err := os.ReadFile("/proc/" + name + "/stat")
	if err != nil {
		return 0, 0, ""
	}
	// pid (comm) state ppid …; comm may hold spaces and brackets.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 2 || fields[0] == "Z" {
		return 0, 0, ""
	}
	parent, _ = strconv.Atoi(fields[1]) // the kernel writes a number
	cmdline, err := os.ReadFile("/proc/" + name + "/cmdline")
	if err != nil {
		return 0, 0, ""
	}
	return pid, parent, strings.ReplaceAll(string(cmdline), "\x00", " ")
}

func alive(pid int) bool {
	p, _, _ := procInfo(strconv.Itoa(pid))
	return p != 0
}
