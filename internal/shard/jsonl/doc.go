// Package jsonl reads files of JSON lines, plain or compressed with gzip or zstd, and
// copies lines from file to file.
//
// Each line that is not blank is a row. A line longer than 64 MiB, or that is not an
// object, is still a row: reading it gives a problem, a text for people.
//
// Glossary:
//
//   - Scanner: gives a file's lines, one after another.
//   - Object: a line's fields; a field inside objects is named with dots.
//   - Fields: the columns that a file has, by the fields of its first rows.
//   - File: an input opened to read some fields of many rows.
//   - Copy: which lines of a File go to a new file, and the fields added to them.
package jsonl
