// Package shard is all of parquet and storage: it finds input files
// (Discover), cuts them into jobs from their footers (Plan), reads a job's rows
// in bounded memory (OpenRange), writes its scores and publishes them under the
// name that the job determines (Create, Writer.Commit), and reads back what has
// been published (Inspect, InspectAll, ReadScores).
//
// Every input byte is hostile. A file that is no parquet, or lies about its
// sizes, gives an error that names file, row group and column; it never panics
// and never allocates by a number that the file merely claims. That is why
// footers (thrift.go, footer.go), pages (page.go, codec.go, decode.go) and
// columns (column.go) are read by code of our own, which also reads row groups
// compressed in different ways; the parquet library gives the types of columns
// and writes. A reader holds one page a column, however large the row group. A
// page, and so a document, has at most 1 GiB; a row at most 2^26 ids.
//
// Files of JSON lines (lines.go, linesread.go, jsonrow.go) are read line by line
// and give the same rows; a line that is bad is its row's Problem.
//
// Words. An input is a file to score. A kept column is one copied from the
// input to the output. A score file is one job's output:
// OUT/<rel without .parquet>/rows-<first>-<last>.parquet. Its digest is a
// sha256 of its scores in row order, so that two attempts at one job can be
// compared without reading either again.
//
// States of a score file:
//
//	hidden temporary --sync, link--> published --Inspect--> counted
//	       |                            |
//	       +--crash: RemoveTemporaries  +--a second attempt: equal digest is
//	                                       dropped, another is ErrConflict
package shard
