package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"surprisal/internal/jobs"
	"surprisal/internal/serve"
)

func newTop(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show runs, workers with their GPUs, and dead letters, live in this terminal",
		Long: `Show runs, workers with their GPUs, and dead letters, live in this terminal:
what dispatcher serve shows in a browser.

Keys: q quits; s sorts workers by trouble, name, fast or slow; p pauses and goes
on; up and down turn the workers' pages. Where stdout is no terminal it is plain
tables, one after the other; with --json one object a refresh, as serve's
/api/state has it, and the newest dead letters.

While NATS is away it says so, shows what was known, and goes on by itself.`,
		Example: `  dispatcher top --nats nats://queue:4222
  dispatcher top --nats nats://queue:4222 --once --json | jq .fleet`,
		Args: cobra.NoArgs,
	}
	natsFlags(cmd)
	f := cmd.Flags()
	f.Bool("json", false, "print as JSON, one object a refresh")
	f.Bool("once", false, "show it once and end")
	f.Duration("every", time.Second, "time between refreshes, 1s or more")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runTop(cmd, l) }
	return cmd
}

func runTop(cmd *cobra.Command, l life) error {
	f := cmd.Flags()
	asJSON, _ := f.GetBool("json") // made above, as are the others
	once, _ := f.GetBool("once")
	every, _ := f.GetDuration("every")
	if every < time.Second {
		return flagError{fmt.Errorf("--every %s is less than 1s", every)}
	}
	log, _, _, err := logger(cmd, os.Stderr, os.Stderr, true)
	if err != nil {
		return err
	}
	draws := !once && !asJSON && term.IsTerminal(int(os.Stdout.Fd())) && term.IsTerminal(int(os.Stdin.Fd()))
	if draws && term.IsTerminal(int(os.Stderr.Fd())) {
		log = zerolog.Nop() // it would write over the tables, which say it
	}
	nats, err := natsConfig(cmd, log)
	if err != nil {
		return err
	}
	nats.Wait = !once
	top, err := serve.NewTop(serve.Config{Program: version, NATS: shownURLs(nats.URLs), Log: log})
	if err != nil {
		return err
	}
	connect := func(ctx context.Context) (*jobs.Client, error) { return jobs.Connect(ctx, nats) }
	return top.Run(l.drain, connect, func(ctx context.Context) error {
		switch {
		case once:
			return top.Once(ctx, cmd.OutOrStdout(), asJSON)
		case draws:
			return top.Terminal(ctx, os.Stdin, os.Stdout, every)
		}
		return top.Follow(ctx, cmd.OutOrStdout(), every, asJSON)
	})
}
