// Package serve is the live page of a queue: runs, jobs, workers and dead letters,
// in a browser, and in a terminal (Top).
//
// It reads the queue as the commands do (package dispatch) and controls it as they
// do; what it adds is a page, its history of the last minutes, and who may do what:
// anybody who reaches it may look, only who has the token may control. What a
// browser is sent is bounded: sums, and lists by the page.
package serve
