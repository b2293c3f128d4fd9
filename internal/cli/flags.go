package cli

import "strings"

// DispatcherFlags are the names of all flags of the dispatcher, which the worker
// accepts in a config file; a test holds the list to the commands.
func DispatcherFlags() []string {
	return append(sharedFlags(), strings.Fields(`
		ack-wait addr allow-host as batch-tokens by context-column dead documents dry-run
		engine every failed-files ids-column job-tokens json keep limit long max-length
		model monitor no-tokens now older-than once out partial per-token plots priority
		quarantine query-scale repair replicas rescore row seed special-tokens stale-after
		state target-column text text-column threads to token-file tokenizer wait where
		with-scores worker-bin workers`)...)
}

// WorkerFlags are the names of all flags of the worker, likewise.
func WorkerFlags() []string {
	return append(sharedFlags(), strings.Fields(`
		allow-input allow-model allow-output batch-tokens drain-timeout end-with-stdin
		engine gpu id in-flight stall-after threads tokenizer`)...)
}

func sharedFlags() []string {
	return strings.Fields(`
		config log-format log-level metrics-addr nats nats-ca nats-cert nats-creds nats-key
		nats-nkey nats-password-file nats-token-file nats-user pprof`)
}
