// Package decode is Parquet's encodings of values: PLAIN, dictionaries, the run-length and
// bit-packed hybrid, the delta encodings, and byte stream split. Every bound is checked
// while decoding, and nothing is allocated by a number that the data merely claims.
//
// Glossary: a Vector is the values of a page or of a dictionary; a Span is where one
// value of any length lies in it.
package decode
