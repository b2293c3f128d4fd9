package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/serve"
	"surprisal/internal/usage"
)

// envServeToken has the token where no file does.
const envServeToken = "SURPRISAL_SERVE_TOKEN" //nolint:gosec // a name

// serveOptions are the flags of serve.
type serveOptions struct {
	q               *queue
	metrics         cli.Metrics
	addr, tokenFile string
	hosts           []string
	asJSON          bool
}

func newServe(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve a live page of runs, jobs, workers and dead letters",
		Long: `Serve a live page of runs, jobs, workers and dead letters, until interrupted.

Everyone who reaches --addr can read the page. Pausing, resuming, cancelling,
retrying and draining need the token of --token-file (or ` + envServeToken + `);
without a token these actions are disabled. The page is plain HTTP: listen on
loopback and connect through ssh -L or a proxy with TLS.

While NATS is unreachable the page says so, shows the last known state, and
reconnects.`,
		Example: `  dispatcher serve --nats nats://queue:4222
  head -c 24 /dev/urandom | base64 > serve.token
  dispatcher serve --nats nats://queue:4222 --addr 127.0.0.1:8090 --token-file serve.token`,
		Args: cobra.NoArgs,
	}
	o := serveOptions{q: newQueue(a, cmd)}
	f := cmd.Flags()
	f.StringVar(&o.addr, "addr", "127.0.0.1:8090", "address to listen on; port 0 selects a free port")
	f.StringVar(&o.tokenFile, "token-file", "", "file with the token that allows control")
	f.StringSliceVar(&o.hosts, "allow-host", nil,
		"host name under which browsers may request the page, beside addresses, localhost and this machine's name")
	f.BoolVar(&o.asJSON, "json", false, "print the address as JSON")
	o.metrics.Flags(f)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return o.serve(cmd.OutOrStdout()) }
	return cmd
}

func (o *serveOptions) serve(out io.Writer) (err error) {
	a := o.q.app
	log, err := a.stderr(zerolog.InfoLevel)
	if err != nil {
		return err
	}
	nats, err := o.q.config(log)
	if err != nil {
		return err
	}
	token, err := o.token()
	if err != nil {
		return &usage.Error{Err: err}
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		return usage.Errorf("--addr: %w", err)
	}
	defer listener.Close()
	patient := nats
	patient.Wait = true
	s, err := serve.New(serve.Config{
		Program: version, NATS: serve.ShownURLs(nats.URLs), Token: token, Hosts: o.hosts, Address: listener.Addr(),
		Log:  log,
		Dial: func(ctx context.Context) (*jobs.Client, error) { return jobs.Connect(ctx, nats) },
	})
	if err != nil {
		return &usage.Error{Err: err}
	}
	if err := o.print(out, listener.Addr(), token != ""); err != nil {
		return err
	}
	if !serve.Loopback(listener.Addr()) {
		log.Warn().Str("addr", listener.Addr().String()).
			Msg("other machines can read the page over plain HTTP, and tokens typed into it are not encrypted")
	}
	mon, err := newWatch(&o.metrics, log)
	if err != nil {
		return err
	}
	defer mon.Close()
	mux := http.NewServeMux()
	s.Register(mux)
	return serve.Listen(a.Drain, a.Abort, listener, mux, log, func(ctx context.Context) error {
		end := func() {}
		defer func() { end() }()
		return s.Run(ctx, func(ctx context.Context) (*jobs.Client, error) {
			client, err := jobs.Connect(ctx, patient)
			if err == nil {
				end = mon.observeRuns(ctx, client, s.Overview, log)
			}
			return client, err
		})
	})
}

func (o *serveOptions) print(w io.Writer, addr net.Addr, controls bool) error {
	url := "http://" + addr.String()
	if o.asJSON {
		return cli.PrintJSON(w, map[string]any{"url": url, "controls": controls})
	}
	how := "read-only: no --token-file"
	if controls {
		how = "control with the token"
	}
	_, err := fmt.Fprintf(w, "%s (%s)\n", url, how)
	return err
}

// token is the token that allows control; empty if nobody may.
func (o *serveOptions) token() (string, error) {
	env := os.Getenv(envServeToken)
	if o.tokenFile == "" {
		return env, nil
	}
	token, err := conn.ReadSecret(o.tokenFile)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	if env != "" && env != token {
		return "", fmt.Errorf("--token-file %s and %s differ: use one of them", o.tokenFile, envServeToken)
	}
	return token, nil
}
