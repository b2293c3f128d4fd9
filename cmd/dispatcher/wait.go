package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/dispatch"
	"surprisal/internal/monitor"
)

func newWait(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait RUN",
		Short: "Watch a submitted run until it is complete and checked",
		Long: `Watch a submitted run until every job is committed or dead, check OUT against the
manifest, write _SUCCESS and print the summary. Any number of waits may watch one
run; interrupting one changes nothing.`,
		Example: "  dispatcher wait --nats nats://queue:4222 20261123-084512-k3f9ab",
		Args:    cobra.ExactArgs(1),
	}
	w := waiting{q: newQueue(a, cmd)}
	cmd.Flags().BoolVar(&w.asJSON, "json", false, "print the summary as JSON")
	w.metrics.Flags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return w.wait(cmd.OutOrStdout(), args[0]) }
	return cmd
}

// waiting is the flags of commands that watch a run to its end.
type waiting struct {
	q       *queue
	metrics cli.Metrics
	asJSON  bool
}

func (w *waiting) wait(out io.Writer, run string) error {
	a := w.q.app
	meter := newMeter(os.Stderr)
	defer meter.Close()
	log, err := a.log.Logger(os.Stderr, meter, meter.level())
	if err != nil {
		return err
	}
	mon, err := newWatch(&w.metrics, log)
	if err != nil {
		return err
	}
	defer mon.Close()
	client, err := w.q.connect(a.Abort, log)
	if err != nil {
		return err
	}
	defer client.Close()
	show, end := mon.observe(a.Drain, client, log)
	defer end()
	sum, err := dispatch.Wait(a.Drain, client, run, func(p monitor.Progress) { show(p); meter.Show(p, log) }, log)
	meter.Close()
	if a.Drain.Err() != nil && sum == nil {
		return fmt.Errorf("stopped waiting; the run continues: %w", dispatch.ErrInterrupted)
	}
	return finish(out, sum, err, w.asJSON)
}
