// Command benchqueue measures the queue: what it costs a worker for each job, and
// what it costs the dispatcher in memory.
//
//	benchqueue [--workers 300] [--jobs 20000] [--score 13s]  workers' time
//	benchqueue --memory [--jobs 1000000]                     dispatcher's memory
//
// The server is the one that `dispatcher run` embeds, a process of its own here,
// and syncs every write. The workers are jobs.Consumers whose engine sleeps in place of
// scoring, each with a connection of its own, in a few processes. A job is done
// when its worker makes the job's file, which can be made only once.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/embedded"
	"surprisal/internal/score"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "benchqueue:", err)
		os.Exit(1)
	}
}

// memoryDir is a folder in memory, where there is one. What the dispatcher's memory
// is does not depend on the disk, and two million writes that sync take hours.
const memoryDir = "/dev/shm"

// options are the same for all of its processes.
type options struct {
	workers, processes, jobs, inFlight int
	score                              time.Duration
	memory                             bool
	dir                                string
	role                               string
}

func run(ctx context.Context, args []string) error {
	var o options
	f := flag.NewFlagSet("benchqueue", flag.ContinueOnError)
	f.IntVar(&o.workers, "workers", 300, "workers")
	f.IntVar(&o.processes, "processes", 3, "processes that the workers are in")
	f.IntVar(&o.jobs, "jobs", 20_000, "jobs")
	f.IntVar(&o.inFlight, "in-flight", 4, "jobs that a worker has in hand: taken ahead, scored, settled")
	f.DurationVar(&o.score, "score", 0, "how long a job is scored, on average; 0 is flat out")
	f.BoolVar(&o.memory, "memory", false, "measure the dispatcher's memory instead")
	f.StringVar(&o.dir, "dir", "",
		"folder for the server's store and the jobs' files (default: a temporary one; with --memory in /dev/shm)")
	f.StringVar(&o.role, "role", "", "for its own processes")
	if err := f.Parse(args); err != nil {
		return err
	}
	switch o.role {
	case "server":
		return serve(ctx, o)
	case "workers":
		return work(ctx, o)
	case "dispatcher":
		return dispatcher(ctx, o)
	}
	if o.dir == "" {
		parent := ""
		if _, err := os.Stat(memoryDir); o.memory && err == nil {
			parent = memoryDir
		}
		dir, err := os.MkdirTemp(parent, "benchqueue-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		o.dir = dir
	}
	server, conn, err := startServer(o)
	if err != nil {
		return err
	}
	defer server.stop()
	if o.memory {
		return memory(ctx, o, conn, server)
	}
	return timing(ctx, o, conn, server)
}

// serve is the server's process: it prints how to reach it, and ends with its stdin.
func serve(ctx context.Context, o options) error {
	s, err := embedded.Start(ctx, embedded.Config{StoreDir: filepath.Join(o.dir, "store")})
	if err != nil {
		return err
	}
	defer s.Shutdown()
	if err := json.NewEncoder(os.Stdout).Encode(conn.Config{URLs: []string{s.URL()}, Token: s.Token()}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// process is one of this program's others.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func start(o options, role string, workers int, conn conn.Config) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "--role", role, "--dir", o.dir, "--jobs", fmt.Sprint(o.jobs),
		"--workers", fmt.Sprint(workers), "--in-flight", fmt.Sprint(o.inFlight), "--score", o.score.String())
	cmd.Env = append(os.Environ(), conn.Environ()...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd, in, json.NewDecoder(out)}, cmd.Start()
}

func startServer(o options) (*process, conn.Config, error) {
	var conn conn.Config
	p, err := start(o, "server", 0, conn)
	if err != nil {
		return nil, conn, err
	}
	if err := p.out.Decode(&conn); err != nil {
		return nil, conn, errors.Join(fmt.Errorf("start server: %w", err), p.cmd.Wait())
	}
	return p, conn, nil
}

// stop ends a process that ends with its stdin.
func (p *process) stop() {
	_ = p.in.Close()
	_ = p.cmd.Wait() // its error was on stderr
}

// used is CPU seconds and peak memory of a process that has ended.
func (p *process) used() (cpu time.Duration, rss int64) {
	s := p.cmd.ProcessState
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		rss = u.Maxrss << 10
	}
	return s.UserTime() + s.SystemTime(), rss
}

// manifest plans n jobs, a hundred to a file.
func manifest(out string, n int) *score.Manifest {
	m := &score.Manifest{
		Version: score.FormatVersion, Run: "bench", Created: "2026-01-02T03:04:05Z", Program: "benchqueue", Out: out,
		Inputs: []string{"/data/fineweb-edu"},
		Options: score.Options{TextColumn: "text", Long: score.LongCarry, MaxLength: 4096, Special: score.SpecialText,
			Engine: score.EngineCPU},
		Model: score.Model{
			Dir: "/models/gdn2_kla_1.3B", Name: "gdn2_kla_1.3B", Digest: "sha256:" + fmt.Sprintf("%064d", 1),
			Tokenizer: "/models/gdn2_kla_1.3B/tokenizer.json", TokenizerDigest: "sha256:" + fmt.Sprintf("%064d", 2),
		},
	}
	m.ConfigDigest = score.ConfigDigest(m.Options, m.Model)
	const each, rows = 100, 4000
	for i := 0; n > 0; i++ {
		cuts := make([]int64, min(n, each))
		for c := range cuts {
			cuts[c] = int64(c) * rows
		}
		n -= len(cuts)
		rel := fmt.Sprintf("CC-MAIN-2024-10/%03d_%05d.parquet", i/1000, i)
		m.Files = append(m.Files, score.FilePlan{
			Input: score.Input{Path: "/data/fineweb-edu/" + rel, Rel: rel, Size: 2 << 30,
				Version: "2147483648-1700000000000000000"},
			Rows: int64(len(cuts)) * rows, RowGroups: 4, Cuts: cuts, Tokens: int64(len(cuts)) * 4_000_000,
		})
	}
	return m
}

func mib(b int64) string { return fmt.Sprintf("%d MiB", b>>20) }

func cores() string { return fmt.Sprintf("%d cores", runtime.NumCPU()) }
