// Package pq is the Parquet format: footers, pages and columns are read, and rows are
// copied from file to file without being decoded. It knows nothing of scores, jobs or
// stores; a file is an io.ReaderAt.
//
// Every byte of a file is untrusted. A file that is not Parquet, or whose sizes are
// wrong, gives an error that names row group, column and page; it never panics and
// never allocates by a number that the file merely claims. That is why footers
// (thrift.go, footer.go), pages (page.go, codec.go, decode.go) and columns (column.go)
// are read by code of this package. parquet-go supplies the types of columns, the
// format's definitions, and the writer for which NewSchema makes schemas.
//
// A Column holds one page at a time, however large the row group. A page, and so a
// value, has at most 1 GiB.
//
// Glossary:
//
//   - Footer: what a file says of itself: schema, row groups, key-value metadata.
//   - Element: a node of the schema; its Leaf is set if it is a column of values.
//   - Leaf: a column of values, with its maximum repetition and definition levels.
//   - Chunk: one leaf's pages in one row group.
//   - Entry: one value of a row, or one null, with its levels.
//   - Column: reads the entries of a leaf, row by row, from a row on.
//   - Scalar: reads a column of plain values, many at a time.
//   - Table: a file opened for reading single columns or copying rows.
//   - Copy: which rows of a Table go to a new file; see docs/adr for why pages are
//     copied as they are.
//   - Range: a file whose rows are some of another file's, and go beside them.
package pq
