// Package dispatch is a run as its dispatcher sees it, from the plan to the summary:
//
//	Plan       decide what a run scores: inputs cut into jobs
//	Begin      write the manifest and compare OUT with it
//	Submit     Begin, then queue the jobs that OUT does not hold
//	Resume     do that again for a run that was paused, cancelled or interrupted
//	Wait       watch a submitted run until its end, and finish it
//	Local      all of it on this machine, with a server and workers of its own
//	Pause, Cancel, Retry   what a person does to a run meanwhile
//
// Words:
//
//	OUT        the run's output folder
//	manifest   the plan of a run, kept in OUT
//	committed  a job whose score file is in OUT
//	dead       a job that no worker takes again until a person retries it
//	lock       held on OUT by one dispatcher: a locked file, or a lease in a bucket
//	lease      held on the run in the queue by one dispatcher (jobs.DispatcherLease)
//
// A run is complete when every job of its manifest has a committed score file,
// whatever the queue says; it has ended when the other jobs are dead. Totals come
// from committed files alone. So the queue is disposable, and each step here may be
// interrupted and repeated.
package dispatch
