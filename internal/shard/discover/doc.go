// Package discover finds the files that arguments stand for: local files, folders and
// patterns, and their like in buckets and on the Hugging Face Hub.
//
// Patterns are matched by code of this package (glob.go) and not by a library: names
// that begin with a dot or an underscore are skipped unless the pattern's own part
// begins so, a folder that a pattern matches is searched as a folder, ** does not
// follow links, and links that lead in circles end. doublestar has no rule for the
// first two, and follows links either everywhere or nowhere.
//
// Glossary:
//
//   - Argument: what a user named: a file, a folder, a pattern or a URL.
//   - Rel: an input's name relative to the folder its argument stands for; it names the
//     folder of its scores in OUT.
//   - Problem: something met on the way that can't be an input.
package discover
