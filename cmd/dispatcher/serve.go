package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/serve"
)

// envServeToken has the token where no file does.
const envServeToken = "SURPRISAL_SERVE_TOKEN" //nolint:gosec // a name

func newServe(l life) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve a live page of runs, jobs, workers and dead letters",
		Long: `Serve a live page of runs, jobs, workers and dead letters, until interrupted.

Whoever reaches --addr may look. Pausing, resuming, cancelling, retrying and
draining are for those who have the token of --token-file (or
` + envServeToken + `); without one nobody may. The page is plain HTTP: listen
on loopback and come through ssh -L or a proxy that has TLS.

While NATS is away the page says so, shows what was known, and goes on by itself.`,
		Example: `  dispatcher serve --nats nats://queue:4222
  head -c 24 /dev/urandom | base64 > serve.token
  dispatcher serve --nats nats://queue:4222 --addr 127.0.0.1:8090 --token-file serve.token`,
		Args: cobra.NoArgs,
	}
	natsFlags(cmd)
	f := cmd.Flags()
	f.String("addr", "127.0.0.1:8090", "address to listen on; port 0 takes a free one")
	f.String("token-file", "", "file with the token of those who may control")
	f.StringSlice("allow-host", nil, "name that browsers may ask for the page by, beside addresses, localhost and this machine's name")
	f.Bool("json", false, "tell the address as JSON")
	metricsFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runServe(cmd, l) }
	return cmd
}

func runServe(cmd *cobra.Command, l life) error {
	f := cmd.Flags()
	addr, _ := f.GetString("addr") // made above, as are the others
	hosts, _ := f.GetStringSlice("allow-host")
	asJSON, _ := f.GetBool("json")
	log, _, _, err := logger(cmd, os.Stderr, os.Stderr, false)
	if err != nil {
		return err
	}
	nats, err := natsConfig(cmd, log)
	if err != nil {
		return err
	}
	order := nats
	nats.Wait = true
	token, err := serveToken(cmd)
	if err != nil {
		return flagError{err}
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return flagError{fmt.Errorf("--addr: %w", err)}
	}
	s, err := serve.New(serve.Config{
		Program: version, NATS: shownURLs(nats.URLs), Token: token, Hosts: hosts, Address: listener.Addr(), Log: log,
		Dial: func(ctx context.Context) (*jobs.Client, error) { return jobs.Connect(ctx, order) },
	})
	if err != nil {
		_ = listener.Close() // nothing was served
		return flagError{err}
	}
	url := "http://" + listener.Addr().String()
	if asJSON {
		err = printJSON(cmd.OutOrStdout(), map[string]any{"url": url, "controls": token != ""})
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s (%s)\n", url, map[bool]string{true: "controls with the token", false: "read-only: no --token-file"}[token != ""])
	}
	if err != nil {
		return err
	}
	if !serve.Loopback(listener.Addr()) {
		log.Warn().Str("addr", listener.Addr().String()).Msg("other machines may look, over plain HTTP; a token typed into the page travels the same way")
	}
	mon, err := newExporter(cmd, log)
	if err != nil {
		_ = listener.Close() // nothing was served
		return err
	}
	defer mon.Close()
	mux := http.NewServeMux()
	s.Register(mux)
	return listen(l, listener, mux, func(ctx context.Context) error {
		end := func() {}
		defer func() { end() }()
		return s.Run(ctx, func(ctx context.Context) (*jobs.Client, error) {
			client, err := jobs.Connect(ctx, nats)
			if err == nil {
				_, end = mon.observe(ctx, client, s.Overview, log)
			}
			return client, err
		})
	}, log)
}

// listen answers on the listener while run runs, until the first signal.
func listen(l life, listener net.Listener, h http.Handler, run func(context.Context) error, log zerolog.Logger) error {
	g, ctx := errgroup.WithContext(l.drain)
	srv := serve.HTTP(h)
	srv.BaseContext = func(net.Listener) context.Context { return ctx } // streams end with it
	srv.ErrorLog = nil
	g.Go(func() error { return run(ctx) })
	g.Go(func() error {
		if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(l.ctx, 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(end); err != nil {
			log.Warn().Err(err).Msg("requests cut off")
			return srv.Close()
		}
		return nil
	})
	return g.Wait()
}

// serveToken is the token of those who may control; empty where nobody may.
func serveToken(cmd *cobra.Command) (string, error) {
	file, _ := cmd.Flags().GetString("token-file") // made by newServe
	env := os.Getenv(envServeToken)
	if file == "" {
		return env, nil
	}
	token, err := conn.ReadSecret(file)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	if env != "" && env != token {
		return "", fmt.Errorf("--token-file %s and %s differ: give one", file, envServeToken)
	}
	return token, nil
}

// shownURLs are the servers without user info, as people may see them.
func shownURLs(urls []string) string {
	shown := make([]string, 0, len(urls))
	for _, u := range urls {
		scheme, rest, found := strings.Cut(strings.TrimSpace(u), "://")
		if !found {
			scheme, rest = "nats", scheme
		}
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			rest = rest[i+1:]
		}
		shown = append(shown, scheme+"://"+rest)
	}
	return cmp.Or(strings.Join(shown, ", "), "NATS")
}
