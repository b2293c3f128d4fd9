//go:build !cuda

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "gpubench: built without CUDA: make gpu-binaries")
	os.Exit(2)
}
