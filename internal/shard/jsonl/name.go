package jsonl

import "strings"

// linesSuffixes are those of files of JSON lines, compressed ones after them.
var linesSuffixes = []string{".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst"}

// Is tells by a file's name whether it holds JSON lines.
func Is(name string) bool {
	for _, s := range linesSuffixes {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	return false
}

func Compressed(name string) bool {
	return strings.HasSuffix(name, ".gz") || strings.HasSuffix(name, ".zst")
}

// Suffix is the end of a file's name that says that it holds JSON lines, and
// how they are compressed; empty for any other file.
func Suffix(name string) string {
	suffix := ""
	for _, s := range linesSuffixes {
		if len(s) > len(suffix) && len(name) > len(s) && strings.HasSuffix(name, s) {
			suffix = s
		}
	}
	return suffix
}
