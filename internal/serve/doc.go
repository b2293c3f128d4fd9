// Package serve is the live page of a queue: runs, jobs, workers and dead letters,
// in a browser, and in a terminal (Top).
//
// It reads and controls the queue as the commands do, and adds a page, the history of
// the last minutes, and permissions: anyone who reaches it may read, only those with the
// token may control. What a browser receives is bounded: sums, and lists by the page.
package serve
