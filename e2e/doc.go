// Package e2e tests the programs as people run them: real processes, a real
// queue, real parquet, and real kills.
package e2e
