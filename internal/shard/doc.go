// Package shard is a job's rows: it cuts an input into jobs (Plan), reads a job's rows
// in bounded memory (Opener.OpenRange), writes their scores (NewWriter, Writer.Commit),
// and reads score files back (Inspect, ReadScores, Verify).
//
// The formats are in the packages below it: pq for Parquet, jsonl for JSON lines. discover
// finds inputs, and outdir is where score files are published; it imports this package,
// and a Writer publishes through the interface Place. Verify is here rather than in
// outdir since it checks what the Writer of this package wrote, column by column.
//
// Every byte of an input is untrusted; what is wrong with it is an error that wraps
// pq.ErrCorrupt or pq.ErrColumn, or one row's Problem. A row has at most 2^26 ids.
//
// Glossary:
//
//   - Input: a file to score.
//   - Kept column: a column copied from the input to the score file.
//   - Score file: one job's output, OUT/<rel without .parquet>/rows-<first>-<last>.parquet.
//   - Digest: a sha256 of a file's scores in row order, by which two attempts at one job
//     are compared without reading either again.
//   - Place: where a Writer's file gets its name.
package shard
