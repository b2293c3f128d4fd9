// Package place names where files and folders are. A place is an absolute local
// path or a URL: of a bucket (s3, gs, az), of a web server (https) or of the
// Hugging Face hub (hf).
//
// What a person writes on a command line goes through Resolve once, in cmd; what
// stands in a manifest or a job message may be hostile and goes through Parse.
// ValidInput, ValidOut and ValidModelDir say what a place may be used for.
package place
