// Package record is what the queue's buckets and its stream of dead letters hold,
// one JSON object each: of a run, a job, a worker, a dispatcher, a dead letter. A
// record may have been written by anybody: the Decode functions check it.
package record
