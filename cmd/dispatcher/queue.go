package main

import (
	"context"
	"os"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"surprisal/internal/cli"
	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/usage"
)

// queue is a command's way to the NATS server.
type queue struct {
	cli.NATS
	app  *app
	name string // of the command
}

// newQueue adds the flags of how to reach the server to cmd.
func newQueue(a *app, cmd *cobra.Command) *queue {
	name, _, _ := strings.Cut(cmd.Use, " ")
	q := &queue{app: a, name: "surprisal dispatcher " + name}
	q.Flags(cmd.Flags())
	return q
}

func (q *queue) config(log zerolog.Logger) (conn.Config, error) { return q.Config(q.name, log) }

func (q *queue) connect(ctx context.Context, log zerolog.Logger) (*jobs.Client, error) {
	cfg, err := q.config(log)
	if err != nil {
		return nil, err
	}
	return jobs.Connect(ctx, cfg)
}

// open connects with a log of warnings; the caller closes the connection.
func (q *queue) open() (*jobs.Client, zerolog.Logger, error) {
	log, err := q.app.stderr(zerolog.WarnLevel)
	if err != nil {
		return nil, log, err
	}
	client, err := q.connect(q.app.Abort, log)
	return client, log, err
}

// stderr is a logger to standard error, from level on where the flags name none.
func (a *app) stderr(level zerolog.Level) (zerolog.Logger, error) {
	return a.log.Logger(os.Stderr, os.Stderr, level)
}

// queueOptions are the flags that a run is queued with.
type queueOptions struct {
	priority int
	opt      dispatch.QueueOptions
	changed  func(flag string) bool
}

func newQueueOptions(cmd *cobra.Command) *queueOptions {
	f := cmd.Flags()
	o := &queueOptions{changed: f.Changed}
	f.IntVar(&o.priority, "priority", 0,
		"workers take jobs of runs with a higher priority first; equal ones share the workers")
	f.DurationVar(&o.opt.Run.AckWait, "ack-wait", 0,
		"how long a worker may be silent before its job goes to another (default 60s); "+
			"set when the run is first queued")
	f.IntVar(&o.opt.Topology.Replicas, "replicas", 0,
		"replicas of the queue when it is first created: 1, or 3 on a cluster")
	return o
}

func (o *queueOptions) options() dispatch.QueueOptions {
	if o.changed("priority") {
		o.opt.Priority = &o.priority
	}
	return o.opt
}

// target is what a RUN|OUT argument names.
type target struct {
	out, run string       // run is empty for a folder
	client   *jobs.Client // nil without a server
}

func (t *target) close() {
	if t.client != nil {
		t.client.Close()
	}
}

// find resolves arg, an output folder or a run of the NATS server, and connects to
// the server if one is named or needed.
func (q *queue) find(arg string) (*target, error) {
	log, err := q.app.stderr(zerolog.WarnLevel)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(arg)
	folder := err == nil && st.IsDir() || place.IsURL(arg)
	out := arg
	switch {
	case folder:
		if err := cli.Resolve("", &out); err != nil {
			return nil, err
		}
		if q.URL == "" {
			return &target{out: out}, nil
		}
	case !score.ValidRunID(arg):
		return nil, usage.Errorf("%s is neither a folder nor a run ID", arg)
	}
	client, err := q.connect(q.app.Abort, log)
	switch {
	case err == cli.ErrNoNATS && !folder:
		return nil, usage.Errorf("%s is not a folder on this machine; if it is a run ID, give --nats URL", arg)
	case err != nil:
		return nil, err
	case folder:
		return &target{out: out, client: client}, nil
	}
	r, err := client.Run(q.app.Drain, arg)
	if err != nil {
		client.Close()
		return nil, err
	}
	return &target{out: r.Out, run: r.ID, client: client}, nil
}
