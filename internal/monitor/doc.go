// Package monitor reports how runs, jobs, workers and the queue stand, from the
// queue's records and from OUT. It changes nothing.
//
//	GetStatus, ListRuns        runs at one moment
//	ListJobs, GetJob           jobs at one moment
//	DeadLetters, NewestDead    dead letters at one moment
//	Monitor                    all runs, kept current for pages that stay open for hours
//	Observer, RunsObserver     the same for Prometheus
//	Tracker                    the state of each job of a run, which these and dispatch's
//	                           watch share
//
// Words:
//
//	state      where a job is, as its newest record tells it (record.State), or queued
//	           if it has no record
//	pace       how far a run is and how fast it advances
//	follow     to receive each change of a run's job records, rather than ask again
package monitor
