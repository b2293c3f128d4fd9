//go:build !linux

package cpu

func advise([]byte) {}
