package cpu

import "syscall"

// hugePage is the least mapping worth large pages: weights are read a column
// panel at a time, which small pages make a miss of the translation cache each.
const hugePage = 2 << 20

// advise asks for large pages where the system offers them.
func advise(b []byte) {
	if len(b) >= hugePage {
		_ = syscall.Madvise(b, syscall.MADV_HUGEPAGE) // only advice
	}
}
