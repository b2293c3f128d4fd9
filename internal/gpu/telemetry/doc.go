// Package telemetry samples one GPU through NVML. A goroutine takes a sample once a
// second; readers get the newest one without waiting.
//
// Nothing here fails: without a driver NVML is down, and a value that the board or its
// driver does not report is absent. For a MIG device, memory is the device's own, the
// other values are the board's, and energy is unknown because the board is shared.
//
// go-nvml leaves NVML's functions undefined until they are called. Toolchains that bind
// all symbols when a program starts (-z now) need -Wl,-z,lazy, which the Makefile sets;
// without it no program with this package starts.
package telemetry
