package e2e

// Names on the server, as docs/design.md has them.
const (
	jobStream    = "SURPRISAL_JOBS"
	deadStream   = "SURPRISAL_DEAD"
	eventStream  = "SURPRISAL_EVENTS"
	reapDurable  = "reaper"
	runBucket    = "surprisal_runs"
	workerBucket = "surprisal_workers"
)
