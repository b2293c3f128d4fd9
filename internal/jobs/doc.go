// Package jobs is the queue, on NATS JetStream. The packages below it are its parts:
// conn (how NATS is reached), embedded (a server in this process), record (what the
// buckets hold), simnats (a server in memory, for simulations). Nothing else in the
// program uses NATS.
//
// A dispatcher sets the queue up (Setup), opens a run in it (OpenRun), fills it
// (Submit), watches it (WatchRun, Reap) and keeps the run's record, while it has the
// run's lease (AcquireRun). A worker takes one job at a time, of any run
// (Consumer.Next), and settles it.
//
// Terms are those of NATS: stream, subject, durable consumer, AckWait, InProgress,
// Nak, Term, DoubleAck, MaxDeliver. Besides these:
//
//	lease        one delivery of one job to one worker, with heartbeats until settled
//	settle       to end a lease: Done, Retry, Fail, Abandon or Decline
//	attempt      a delivery that counts against the job: one that ended in Retry
//	             (failed), or whose worker never settled it (lost)
//	epoch        number of a submission of a run; part of the message ID
//	dead         a job that no worker takes again until a person retries it
//	dead letter  the job, the reason and the attempts, kept when a job is dead
//	roster       the runs that a worker can take jobs of, as it last read them
//
// The states of a job in the bucket surprisal_jobs:
//
//	           Submit                 Next
//	(no state) ------> (queued) ------------------> running --Done--> done
//	                      ^                            |
//	                      |  waiting  <-- Abandon, Decline
//	                      +---- failed <-- Retry, attempts left
//	                                                   |
//	   dead <-- Fail; Retry, none left; lost too often; MaxDeliver; unreadable
//
// The queue is disposable: from the manifest and OUT alone the dispatcher knows which
// jobs remain. Nothing here decides whether a run is complete.
package jobs
