// Package monitor tells how runs, jobs, workers and the queue stand, from the
// queue's records and from OUT. It changes nothing.
//
//	Status, ListRuns   runs at one moment
//	ListJobs, GetJob   jobs at one moment, one line each or all that is known of one
//	Monitor            the same kept current, for those who look on for hours
//	Observer           the same for Prometheus
package monitor
