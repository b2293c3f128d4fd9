package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/record"
)

// times are of one process's jobs, in seconds.
type times struct {
	Take, Done []float64 // Next, with a job waiting; Done
	// Idle is for how long an engine had nothing to score before each job but its
	// worker's first, Scored what it scored meanwhile.
	Idle   []float64
	Scored float64
	Twice  int // jobs whose file was there already
}

// timing lets workers take and end jobs and prints what that took.
func timing(ctx context.Context, o options, conn conn.Config, server *process) error {
	log := zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr}).Level(zerolog.WarnLevel)
	if err := os.MkdirAll(filepath.Join(o.dir, "out"), 0o777); err != nil {
		return err
	}
	conn.Log = log
	client, err := jobs.Connect(ctx, conn)
	if err != nil {
		return err
	}
	defer client.Close()
	m := manifest(filepath.Join(o.dir, "out"), o.jobs)
	begin := time.Now()
	s := dispatch.Submitted{Manifest: m, Committed: &dispatch.Committed{Jobs: map[string]bool{}}}
	if err := s.Queue(ctx, client, dispatch.QueueOptions{}); err != nil {
		return err
	}
	submitted := time.Since(begin)
	var crew []*process
	for i := range o.processes {
		n := o.workers / o.processes
		if i < o.workers%o.processes {
			n++
		}
		p, err := start(o, "workers", n, conn)
		if err != nil {
			return err
		}
		defer p.stop()
		var ready string
		if err := p.out.Decode(&ready); err != nil {
			return fmt.Errorf("workers: %w", err)
		}
		crew = append(crew, p)
	}
	begin = time.Now()
	for _, p := range crew {
		if _, err := p.in.Write([]byte("go\n")); err != nil {
			return err
		}
	}
	if err := watchDone(ctx, client, m.Run, o.jobs); err != nil {
		return err
	}
	took := time.Since(begin)
	var all times
	var cpu time.Duration
	var rss int64
	for _, p := range crew {
		_ = p.in.Close() // nothing is left: end
		var t times
		if err := p.out.Decode(&t); err != nil {
			return fmt.Errorf("workers: %w", err)
		}
		all.Take, all.Done, all.Twice = append(all.Take, t.Take...), append(all.Done, t.Done...), all.Twice+t.Twice
		all.Idle, all.Scored = append(all.Idle, t.Idle...), all.Scored+t.Scored
		if err := p.cmd.Wait(); err != nil {
			return fmt.Errorf("workers: %w", err)
		}
		c, r := p.used()
		cpu, rss = cpu+c, rss+r
	}
	q, err := client.Queue(ctx)
	if err != nil {
		return err
	}
	files, err := os.ReadDir(m.Out)
	if err != nil {
		return err
	}
	server.stop()
	serverCPU, serverRSS := server.used()
	fmt.Printf("%d jobs of %s to %s, %d workers with %d jobs in flight in %d processes, "+
		"one server that syncs every write, %s\n",
		o.jobs, o.score/2, o.score*3/2, o.workers, o.inFlight, o.processes, cores())
	fmt.Printf("submitted          %.1f s, %.0f jobs/s\n", submitted.Seconds(), float64(o.jobs)/submitted.Seconds())
	fmt.Printf("done               %.1f s, %.0f jobs/s\n", took.Seconds(), float64(o.jobs)/took.Seconds())
	row := func(name string, s []float64) {
		if slices.Sort(s); len(s) == 0 {
			return
		}
		fmt.Printf("%-18s mean %.2f ms, p50 %.2f, p99 %.2f\n", name, 1e3*mean(s), 1e3*s[len(s)/2], 1e3*s[len(s)*99/100])
	}
	row("take (Next)", all.Take)
	row("settle (Done)", all.Done)
	row("engine idle, a job", all.Idle)
	if o.score > 0 {
		fmt.Printf("engines lost       %.3f %% of their time to the queue\n",
			100*sum(all.Idle)/(sum(all.Idle)+all.Scored))
	}
	fmt.Printf("server             %.2f ms of CPU a job, peak %s\n", 1e3*serverCPU.Seconds()/float64(o.jobs),
		mib(serverRSS))
	fmt.Printf("workers            %.2f ms of CPU a job, peak %s together\n", 1e3*cpu.Seconds()/float64(o.jobs),
		mib(rss))
	fmt.Printf("exactly once       %d files, %d done twice, %d messages left\n", len(files), all.Twice, q.Messages)
	if len(files) != o.jobs || len(all.Take) != o.jobs || all.Twice != 0 || q.Messages != 0 {
		return errors.New("not every job was done exactly once")
	}
	return nil
}

func sum(s []float64) (sum float64) {
	for _, v := range s {
		sum += v
	}
	return sum
}

func mean(s []float64) float64 { return sum(s) / float64(max(len(s), 1)) }

// watchDone waits until n jobs are on record as done.
func watchDone(ctx context.Context, client *jobs.Client, run string, n int) error {
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := map[string]bool{}
	err := client.WatchRun(ctx, run, func(s record.Job) {
		if s.State == record.StateDone {
			done[s.Job] = true
		}
		if len(done) == n {
			cancel(enough)
		}
	}, nil)
	if errors.Is(err, enough) {
		return nil
	}
	return err
}

// work is a process of workers. It prints that it is ready, begins when told, and
// prints its times when stdin is closed.
func work(ctx context.Context, o options) error {
	conn := conn.FromEnv(os.Getenv)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var consumers []*jobs.Consumer
	for i := range o.workers {
		client, err := jobs.Connect(ctx, conn)
		if err != nil {
			return err
		}
		defer client.Close()
		k, err := client.NewConsumer(ctx, jobs.ConsumerConfig{Worker: fmt.Sprintf("w-%d-%d", os.Getpid(), i)})
		if err != nil {
			return err
		}
		consumers = append(consumers, k)
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode("ready"); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan() // go
	go func() {
		for lines.Scan() {
		}
		cancel()
	}()
	all := &tally{}
	var g errgroup.Group
	for i, k := range consumers {
		w := worker{k: k, o: o, all: all, rand: rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(i)))}
		g.Go(func() error { return w.run(ctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return out.Encode(&all.times)
}

// tally is times that several workers add to.
type tally struct {
	sync.Mutex
	times
}

// worker does what a worker does with the queue: it takes the next job while the
// engine scores another, and settles a third meanwhile, up to inFlight together.
type worker struct {
	k    *jobs.Consumer
	o    options
	all  *tally
	rand *rand.Rand
}

func (w *worker) run(ctx context.Context) error {
	slots := make(chan struct{}, w.o.inFlight)
	fed := make(chan *jobs.Lease)
	g, settling := errgroup.WithContext(context.WithoutCancel(ctx))
	g.Go(func() error {
		defer close(fed)
		for {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			begin := time.Now()
			l, err := w.k.Next(ctx, settling)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			took := time.Since(begin).Seconds()
			w.all.Lock()
			w.all.Take = append(w.all.Take, took)
			w.all.Unlock()
			fed <- l
		}
	})
	g.Go(func() error { // the engine
		for first := true; ; first = false {
			begin := time.Now()
			l, ok := <-fed
			if !ok {
				return nil
			}
			idle := time.Since(begin).Seconds()
			score := w.o.score/2 + time.Duration(w.rand.Float64()*float64(w.o.score))
			time.Sleep(score)
			if !first {
				w.all.Lock()
				w.all.Idle, w.all.Scored = append(w.all.Idle, idle), w.all.Scored+score.Seconds()
				w.all.Unlock()
			}
			g.Go(func() error {
				defer func() { <-slots }()
				return w.settle(settling, l)
			})
		}
	})
	return g.Wait()
}

// settle makes the job's file and ends it.
func (w *worker) settle(ctx context.Context, l *jobs.Lease) error {
	f, err := os.OpenFile(filepath.Join(l.Job.Out, l.Job.ID), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	twice := errors.Is(err, fs.ErrExist)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !twice {
		return err
	}
	begin := time.Now()
	if err := l.Done(ctx, record.Totals{Documents: l.Job.Rows(), Tokens: 4_000_000, SumNLL: 1}); err != nil {
		return err
	}
	w.all.Lock()
	defer w.all.Unlock()
	w.all.Done = append(w.all.Done, time.Since(begin).Seconds())
	if twice {
		w.all.Twice++
	}
	return nil
}
