package tokenizer

// The Rust half of the tokenizers module, which `make native` builds. Its own
// package says -ltokenizers; linkers look in every -L of a program.

// #cgo LDFLAGS: -L${SRCDIR}/../../../.build/lib
import "C"
