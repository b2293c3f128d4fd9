// Package curate works on scored corpora: it copies the rows that match an expression
// (Filter), sorts documents into head, middle and tail (Bucket), and writes scores beside
// or into the input (Export). Everything is streamed: memory does not grow with the
// corpus. Inputs are parquet, copied page by page, or JSON lines, copied line by line.
//
// A Corpus is a run's OUT together with its inputs. DEST is the folder or bucket prefix
// that is written. It belongs to one request, which is recorded in _made_by.json first:
// the same command continues after an interruption, and another command is refused. A
// file in DEST appears whole or not at all; _SUCCESS is written last. A group is the rows
// with equal values in the columns of --by; a threshold is an exact percentile of a
// column within a group.
package curate
