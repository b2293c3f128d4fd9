package main

import (
	"context"
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"surprisal/internal/jobs"
	"surprisal/internal/serve"
	"surprisal/internal/usage"
)

// topOptions are the flags of top.
type topOptions struct {
	q            *queue
	asJSON, once bool
	every        time.Duration
}

func newTop(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show runs, workers with their GPUs, and dead letters, live in this terminal",
		Long: `Show runs, workers with their GPUs, and dead letters, live in this terminal: the
same as dispatcher serve shows in a browser.

Keys: q quits; s sorts workers by trouble, name, fast or slow; p pauses and resumes
the display; up and down turn the pages of workers. Where stdout is not a terminal
it prints plain tables, one after the other; with --json one object per refresh, as
in serve's /api/state, with the newest dead letters.

While NATS is unreachable it says so, shows the last known state, and reconnects.`,
		Example: `  dispatcher top --nats nats://queue:4222
  dispatcher top --nats nats://queue:4222 --once --json | jq .fleet`,
		Args: cobra.NoArgs,
	}
	o := topOptions{q: newQueue(a, cmd)}
	f := cmd.Flags()
	f.BoolVar(&o.asJSON, "json", false, "print as JSON, one object per refresh")
	f.BoolVar(&o.once, "once", false, "show the state once and exit")
	f.DurationVar(&o.every, "every", time.Second, "time between refreshes, at least 1s")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return o.top(cmd) }
	return cmd
}

func (o *topOptions) top(cmd *cobra.Command) error {
	if o.every < time.Second {
		return usage.Errorf("--every %s: must be at least 1s", o.every)
	}
	log, err := o.q.app.stderr(zerolog.WarnLevel)
	if err != nil {
		return err
	}
	draws := !o.once && !o.asJSON && term.IsTerminal(int(os.Stdout.Fd())) && term.IsTerminal(int(os.Stdin.Fd()))
	if draws && term.IsTerminal(int(os.Stderr.Fd())) {
		log = zerolog.Nop() // lines would overwrite the tables, which say the same
	}
	nats, err := o.q.config(log)
	if err != nil {
		return err
	}
	nats.Wait = !o.once
	top, err := serve.NewTop(serve.Config{Program: version, NATS: serve.ShownURLs(nats.URLs), Log: log})
	if err != nil {
		return err
	}
	connect := func(ctx context.Context) (*jobs.Client, error) { return jobs.Connect(ctx, nats) }
	return top.Run(o.q.app.Drain, connect, func(ctx context.Context) error {
		switch {
		case o.once:
			return top.Once(ctx, cmd.OutOrStdout(), o.asJSON)
		case draws:
			return top.Terminal(ctx, os.Stdin, os.Stdout, o.every)
		}
		return top.Follow(ctx, cmd.OutOrStdout(), o.every, o.asJSON)
	})
}
