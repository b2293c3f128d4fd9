package cpu

/*
#cgo CFLAGS: -O3 -std=c11 -Wall -Wno-psabi
#cgo LDFLAGS: -lm
#include "kernels.h"
*/
import "C"

import (
	"fmt"
	"os"
	"strings"
)

// EnvSet names the instruction set to use, of those that the machine has.
const EnvSet = "SURPRISAL_CPU_SET"

// Sets are the names of the instruction sets that this machine has, fastest first.
func Sets() []string {
	var names []string
	for i := C.int32_t(0); ; i++ {
		s := C.sp_set_at(i)
		if s == nil {
			return names
		}
		if C.sp_set_runs(s) != 0 {
			names = append(names, C.GoString(s.name))
		}
	}
}

// setNamed gives the kernels of an instruction set; an empty name is the
// environment's choice, or the fastest that the machine has.
func setNamed(name string) (*C.sp_set, error) {
	variable := ""
	if name == "" {
		name, variable = os.Getenv(EnvSet), EnvSet+": "
	}
	for i := C.int32_t(0); ; i++ {
		s := C.sp_set_at(i)
		if s == nil {
			return nil, fmt.Errorf("%sinstruction set %q not available; this machine has %s",
				variable, name, strings.Join(Sets(), ", "))
		}
		if C.sp_set_runs(s) != 0 && (name == "" || name == C.GoString(s.name)) {
			return s, nil
		}
	}
}

// Set is the name of the instruction set that an engine takes here, unless its Config
// names another.
func Set() (string, error) {
	s, err := setNamed("")
	if err != nil {
		return "", err
	}
	return C.GoString(s.name), nil
}
