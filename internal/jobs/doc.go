// Package jobs is all of NATS: the embedded server, the connection, the streams
// and buckets, and the two sides of the queue. The dispatcher sets the queue up
// (Setup), opens a run on it (OpenRun), fills it (Submit), watches it (WatchRun,
// Reap), keeps the run records and has the run's lease meanwhile (AcquireRun); a
// worker takes one job at a time, of any run (Consumer.Next), and settles it.
//
// Words are NATS's: stream, subject, durable consumer, AckWait, InProgress, Nak,
// Term, DoubleAck, MaxDeliver. Ours:
//
//	lease      one delivery of one job to one worker, heartbeaten until settled
//	settle     to end a lease: Done, Retry, Fail, Abandon or Decline
//	attempt    a delivery that counts against the job: one that ended in Retry
//	           (failed), or whose worker never settled it (lost)
//	epoch      number of a submission of a run; part of the message id
//	dead       a job that no worker takes again until a person submits it anew
//	dead letter the job, the reason and the attempts, kept after the job is dead
//
// A job's states, as the surprisal_jobs bucket has them:
//
//	           Submit                 Next
//	(no state) ------> (queued) ------------------> running --Done--> done
//	                      ^                            |
//	                      |  waiting  <-- Abandon, Decline
//	                      +---- failed <-- Retry, attempts left
//	                                                   |
//	   dead <-- Fail; Retry, none left; lost too often; MaxDeliver; unreadable
//
// The queue is disposable: from the manifest and OUT alone the dispatcher knows
// what is left to do. Nothing here decides whether a run is complete.
package jobs
