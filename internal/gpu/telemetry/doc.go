// Package telemetry is what NVML tells of one GPU: values sampled once a second by
// a goroutine of its own, from which they are read without waiting.
//
// Nothing here fails: where there is no driver, NVML is down; what a board or its
// driver does not tell is absent. Of a MIG device, memory is its own, the rest is
// the board's, and energy is not known, because others share it.
//
// go-nvml leaves NVML's functions undefined until they are called. Compilers that
// have everything bound at a program's start (-z now) need -Wl,-z,lazy, which the
// Makefile gives; else no program with this package starts.
package telemetry
