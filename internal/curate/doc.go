// Package curate works on scored corpora: it copies the rows that an expression
// lets pass (Filter), sorts documents into head, middle and tail (Bucket), and
// puts scores beside or into the input (Export). All of it streams: memory does
// not grow with the corpus.
//
// Inputs are parquet, of which pages are copied, or JSON lines, of which lines are.
//
// Words. A Corpus is a run's OUT together with its inputs. DEST is the folder, or
// the prefix in a bucket, that is written; it belongs to one request, which is pinned in _made_by.json
// before anything else, so that the same command goes on after whatever cut it
// off and another one is refused. A file in DEST appears whole or not at all;
// _SUCCESS comes last. A group is the rows with equal values in the columns of
// --by; a threshold is a percentile of a column within a group, exact.
package curate
