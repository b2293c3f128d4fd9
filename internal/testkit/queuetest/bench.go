// Package queuetest has a queue with a run for tests of what works on one.
package queuetest

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/embedded"
	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/shard/outdir"
)

// Bench is a NATS server, a dispatcher's client and a planned run.
type Bench struct {
	T      testing.TB
	Ctx    context.Context // ends with the test
	Server *embedded.Server
	Client *jobs.Client
	M      *score.Manifest
}

// New makes a bench with a server and a manifest of one-row jobs in an output folder.
func New(t testing.TB, files, jobsEach int) *Bench {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	b := &Bench{T: t, Ctx: ctx, M: MadeUp(filepath.Join(t.TempDir(), "out"), files, jobsEach)}
	if err := outdir.WriteManifest(ctx, b.M.Out, b.M); err != nil {
		t.Fatal(err)
	}
	b.Start()
	return b
}

// Start starts a server with an empty store, after stopping the one before.
func (b *Bench) Start() {
	b.T.Helper()
	b.Stop()
	var err error
	b.Server, err = embedded.Start(b.Ctx, embedded.Config{StoreDir: b.T.(interface{ TempDir() string }).TempDir()})
	if err != nil {
		b.T.Fatal(err)
	}
	b.Client = b.Connect()
	b.T.Cleanup(b.Stop)
}

// Stop stops the server, if one runs.
func (b *Bench) Stop() {
	if b.Server != nil {
		b.Client.Close()
		b.Server.Shutdown()
		b.Server = nil
	}
}

// Connect is a client of the server, closed when the test ends.
func (b *Bench) Connect() *jobs.Client {
	b.T.Helper()
	c, err := jobs.Connect(b.Ctx, conn.Config{URLs: []string{b.Server.URL()}, Token: b.Server.Token(),
		Timeout: 20 * time.Second})
	if err != nil {
		b.T.Fatal(err)
	}
	b.T.Cleanup(c.Close)
	return c
}

// MadeUp is the manifest of a run whose inputs nobody reads: one row a job.
func MadeUp(out string, files, jobsEach int) *score.Manifest {
	m := &score.Manifest{
		Version: score.FormatVersion, Run: "run-1", Created: "2026-01-02T03:04:05Z", Program: "test", Out: out,
		Inputs: []string{"/in"},
		Options: score.Options{TextColumn: "text", Long: score.LongCarry, MaxLength: 2048, Special: score.SpecialText,
			Engine: score.EngineCPU},
		Model: score.Model{Dir: "/m", Digest: "sha256:aa", Tokenizer: "/t.json", TokenizerDigest: "sha256:bb"},
	}
	m.ConfigDigest = score.ConfigDigest(m.Options, m.Model)
	for i := range files {
		rel := fmt.Sprintf("%06d.parquet", i)
		f := score.FilePlan{Input: score.Input{Path: "/in/" + rel, Rel: rel, Size: 1, Version: "v"},
			Rows:      int64(jobsEach),
			RowGroups: 1, Tokens: int64(jobsEach)}
		for c := range jobsEach {
			f.Cuts = append(f.Cuts, int64(c))
		}
		m.Files = append(m.Files, f)
	}
	return m
}

// Commit writes a job's score file as a worker does.
func Commit(ctx context.Context, j score.Job) (shard.Totals, error) {
	w, err := outdir.Create(ctx, j, nil, shard.Metadata{Engine: "cpu", Device: "test", Program: "test",
		Precision: "float32"})
	if err != nil {
		return shard.Totals{}, err
	}
	defer func() { _ = w.Abort() }()
	for row := j.First; row <= j.Last; row++ {
		if err := w.Write(score.Score{Row: row, Tokens: 10, Bytes: 40, SumNLL: 20 + float64(row)},
			shard.Kept{}); err != nil {
			return shard.Totals{}, err
		}
	}
	c, err := w.Commit(ctx)
	return c.Totals, err
}

// Consumer is a worker on a connection of its own.
func (b *Bench) Consumer(id string) *jobs.Consumer {
	b.T.Helper()
	k, err := b.Connect().NewConsumer(b.Ctx, jobs.ConsumerConfig{Worker: id, FetchWait: 2 * time.Second,
		BackDelay: 20 * time.Millisecond})
	if err != nil {
		b.T.Fatal(err)
	}
	return k
}

// Work does n jobs and says which.
func (b *Bench) Work(k *jobs.Consumer, n int) (done []string) {
	b.T.Helper()
	for range n {
		l, err := k.Next(b.Ctx, b.Ctx)
		if err != nil {
			b.T.Fatal(err)
		}
		t, err := Commit(b.Ctx, l.Job)
		if err == nil {
			err = l.Done(b.Ctx, record.Totals{Documents: t.Documents, Tokens: t.Tokens})
		}
		if err != nil {
			b.T.Fatal(err)
		}
		done = append(done, l.Job.ID)
	}
	return done
}

// Queue queues all jobs of the manifest.
func (b *Bench) Queue(cfg record.RunConfig) {
	b.T.Helper()
	r := record.NewRun(b.M)
	err := b.Client.Setup(b.Ctx, jobs.Topology{})
	for _, step := range []func() error{
		func() error { return b.Client.PutRun(b.Ctx, r) },
		func() error { return b.Client.OpenRun(b.Ctx, r.ID, r.Priority, cfg, r.Config) },
		func() error {
			epoch, err := b.Client.NextEpoch(b.Ctx, r.ID)
			if err == nil {
				_, _, err = b.Client.Submit(b.Ctx, b.M.AllJobs(), epoch)
			}
			return err
		},
		func() error {
			_, err := b.Client.UpdateRun(b.Ctx, r.ID, func(r *record.Run) error {
				r.State = record.RunRunning
				return nil
			})
			return err
		},
	} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		b.T.Fatal(err)
	}
}
