// Package score is the domain: what is asked (Run, Options), how it is cut
// (Job), what one forward pass takes (Batch) and what comes out (Score). It
// uses the standard library alone and every other package imports it.
//
// Words. A run is what a person asked for. A job is one queue message: a range
// of rows of one file. A document is a row. A batch is what one forward pass
// takes. A score is what a row gets.
//
// Letters in shapes. T tokens, N sequences, H heads, K and V head widths, D
// model width, I inner width, L layers, C chunk. cu_seqlens is [N+1].
package score
