// Package store reads and writes files where they live: local paths, s3, gs and
// az buckets, https servers and the Hugging Face hub. It is the one importer of
// cloud SDKs.
//
// A file is named by its place (place.Place): an absolute path or a URL. Resolve
// turns what a person typed into one. Open gives an Object: a size, a version
// and ranges of bytes. Stat, List, Put and Remove do what they say.
//
// A version is what a store says of a file's bytes: an etag, the hub's sha256,
// or size and modification time of a local file. What was opened is pinned to
// its version: each range is asked for on that condition, and bytes of another
// version are ErrChanged, never data.
//
// Over the network a request is tried again, with growing, jittered delays, when
// the server is busy (429, 5xx, honouring Retry-After), cannot be reached, stalls
// or resets; a body that ends early is taken up where it ended. What a person has
// to mend is an error of one line: ErrDenied, fs.ErrNotExist, ErrChanged.
//
// Credentials come from the environment alone, as each provider's own tools take
// them. No error holds a query string, user info or a header.
package store
