package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
	"surprisal/internal/monitor"
	"surprisal/internal/shard/outdir"
)

// step is what the dispatcher's process has done.
type step struct {
	What    string
	Seconds float64
	RSS     int64 // now, bytes
	Peak    int64 // so far, bytes
}

// memory lets a dispatcher submit and watch, writes records in the workers' place,
// and prints what memory the dispatcher had.
func memory(ctx context.Context, o options, conn conn.Config, _ *process) error {
	m := manifest(filepath.Join(o.dir, "out"), o.jobs)
	if err := outdir.WriteManifest(ctx, m.Out, m); err != nil {
		return err
	}
	p, err := start(o, "dispatcher", 0, conn)
	if err != nil {
		return err
	}
	defer p.stop()
	fmt.Printf("dispatcher of %d jobs, %s\n", o.jobs, cores())
	next := func() error {
		var s step
		if err := p.out.Decode(&s); err != nil {
			return fmt.Errorf("dispatcher: %w", err)
		}
		fmt.Printf("%-38s %7.1f s, %5s now, %5s peak\n", s.What, s.Seconds, mib(s.RSS), mib(s.Peak))
		return nil
	}
	for range 3 { // read, queued, watching
		if err := next(); err != nil {
			return err
		}
	}
	if err := putRecords(ctx, conn, o.jobs); err != nil {
		return err
	}
	return next()
}

// putRecords writes that all jobs but one are done, as fast as the server takes it.
func putRecords(ctx context.Context, conn conn.Config, n int) error {
	nc, err := nats.Connect(strings.Join(conn.URLs, ","), nats.Token(conn.Token))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		return err
	}
	m := manifest("/out", n)
	seq := uint64(0)
	for i := range m.Files {
		for _, j := range m.FileJobs(i) {
			if seq++; seq == uint64(n) {
				break
			}
			now := time.Now().UTC()
			b, err := record.Job{
				Run: j.Run, Job: j.ID, State: record.StateDone, Seq: seq, Delivery: 1, Queued: now,
				Lease: "A2ULtlnPUHWuJm7dGhhOQI", Attempt: 1,
				Worker: "gpu-node-0042-12345-a1b2c3", Engine: "cuda", Device: "NVIDIA H200", Started: now, Updated: now,
				Totals: &record.Totals{Documents: j.Rows(), Tokens: 4_000_000, Bytes: 16_000_000, SumNLL: 1.23456789e7,
					Top1: 1_234_567, Seconds: 12.5},
			}.Encode()
			if err != nil {
				return err
			}
			if _, err := js.PublishAsync("$KV."+jobs.JobBucket+"."+j.Run+"."+j.ID, b,
				jetstream.WithStallWait(time.Minute)); err != nil {
				return err
			}
		}
	}
	select {
	case <-js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dispatcher is the process that is measured.
func dispatcher(ctx context.Context, o options) error {
	conn := conn.FromEnv(os.Getenv)
	log := zerolog.New(os.Stderr).Level(zerolog.WarnLevel)
	conn.Log = log
	out := json.NewEncoder(os.Stdout)
	begin := time.Now()
	tell := func(what string) error {
		now, peak, err := residentMemory()
		if err != nil {
			return err
		}
		s := step{what, time.Since(begin).Seconds(), now, peak}
		begin = time.Now()
		return out.Encode(s)
	}
	client, err := jobs.Connect(ctx, conn)
	if err != nil {
		return err
	}
	defer client.Close()
	m, err := outdir.ReadManifest(ctx, filepath.Join(o.dir, "out"))
	if err != nil {
		return err
	}
	c, err := dispatch.Reconcile(ctx, m)
	if err != nil {
		return err
	}
	if err := tell("manifest read, OUT looked through"); err != nil {
		return err
	}
	s := dispatch.Submitted{Manifest: m, Committed: c}
	if err := s.Queue(ctx, client, dispatch.QueueOptions{}); err != nil {
		return err
	}
	if err := tell("jobs queued"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	enough := errors.New("enough")
	first := true
	_, err = dispatch.Wait(ctx, client, m.Run, func(p monitor.Progress) {
		switch {
		case first:
			first = false
			if err := tell("watching"); err != nil {
				cancel(err)
			}
		case p.Done == p.Jobs-1:
			cancel(enough)
		}
	}, log)
	if !errors.Is(err, enough) {
		return fmt.Errorf("watch: %w", err)
	}
	return tell("all jobs but one recorded and watched")
}

// residentMemory reads Linux's figures of this process.
func residentMemory() (now, peak int64, err error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			now = kib << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			peak = kib << 10
		}
	}
	return now, peak, nil
}
