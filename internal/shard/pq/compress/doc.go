// Package compress is Parquet's compression codecs: Expand fills exactly the size that a
// page header claims or fails, Append compresses, and MaxRatio says how far a codec can
// expand, so that a small page can't claim much memory.
package compress
