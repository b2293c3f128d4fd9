// Package quantile computes exact percentiles of any number of values in bounded
// memory, by passes over the data. It is the one source of percentiles: of a run's
// summary, of filter and bucket, and of reports.
//
// A percentile between two values is interpolated as NumPy does by default.
package quantile
