package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Life is how long a command may go on. Both contexts are passed on together, from
// main to the command that runs, and are kept nowhere else.
type Life struct {
	Drain context.Context // done at the first signal
	Abort context.Context // done at the second
}

// Begin gives the life of a process below ctx; end stops listening to signals.
func Begin(ctx context.Context) (l Life, end func()) {
	abort, cancel := context.WithCancel(ctx)
	drain, stop := context.WithCancel(abort)
	signals := make(chan os.Signal, 2) // one to drain, one to abort
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // lives as long as the process
		<-signals
		stop()
		<-signals
		cancel()
	}()
	return Life{drain, abort}, func() {
		signal.Stop(signals)
		stop()
		cancel()
	}
}
