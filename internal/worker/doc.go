// Package worker takes jobs, scores their rows with an engine and commits the
// scores. One pipeline serves every engine and every queue:
//
//	feed → pack → forward → commit
//
// feed fetches one job at a time, reads its rows and tokenizes them in
// parallel; pack fills batches of a fixed token budget across documents and
// jobs; forward runs the engine and gives each document its share; commit
// writes a finished job's file, then acks. Each stage is one goroutine, joined
// by bounded channels, and all end before Run returns.
//
// A job in hand is a task. A task ends in exactly one of: committed and acked,
// given back for another try, or dead with its reason.
package worker
