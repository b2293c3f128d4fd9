// Package store reads and writes files where they live: local paths, s3, gs and az
// buckets, https servers and the Hugging Face hub. Only this package imports cloud SDKs.
//
// A file is named by its place (place.Place): an absolute path or a URL. Open returns an
// Object: a size, a version and ranges of bytes.
//
// A version identifies a file's bytes: an etag, the hub's sha256, or size and modification
// time of a local file. An Object is pinned to its version: every range is requested on
// that condition, and another version gives ErrChanged, never data.
//
// Requests over the network are retried with growing, jittered delays if the server is
// busy (429, 5xx, honouring Retry-After), unreachable, stalls or resets; a truncated body
// resumes where it ended. Problems that the user must fix are errors of one line:
// ErrDenied, fs.ErrNotExist, ErrChanged.
//
// Credentials come only from the environment, as each provider's own tools read them. No
// error contains a query string, user info or a header.
package store
