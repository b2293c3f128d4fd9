// Package arrow joins the schemas that Arrow writers store in Parquet metadata, since
// Parquet itself has no large strings, dictionaries, durations or time zones. So a column
// that is copied keeps its Arrow type beside columns that are added.
//
// Fields are copied without being understood: everything in a FlatBuffer points forward
// by distance, so a new head in front of two whole buffers can point at fields in them.
package arrow
