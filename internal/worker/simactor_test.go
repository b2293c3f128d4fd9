package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"surprisal/internal/dispatch"
	"surprisal/internal/jobs"
	"surprisal/internal/jobs/conn"
	"surprisal/internal/jobs/simnats"
	"surprisal/internal/monitor"
	"surprisal/internal/score"
)

// process is a worker or a dispatcher that runs.
type process struct {
	name  string
	conn  *simnats.Conn
	drain context.CancelFunc // SIGTERM
	free  func()             // what the kernel does when it dies: its locks go
}

// life runs a process, and another in its place whenever it ends or crashes, until
// main is content or the simulation is over.
func (s *simulation) life(kind string, begin func(*process), main func(ctx context.Context, p *process,
	client *jobs.Client) (over bool, err error)) {
	chance := s.net.Chance("life of " + kind)
	for gen := 1; ; gen++ {
		name := fmt.Sprintf("%s.%d", kind, gen)
		p := &process{name: name, conn: s.net.Conn(name), drain: func() {}, free: func() {}}
		log := s.logger(name)
		client := jobs.New(
			conn.Wrap(p.conn, log), p.conn.JetStream(), conn.Config{Wait: kind != "dispatcher", Log: log},
		)
		begin(p)
		type end struct {
			over bool
			err  error
		}
		ended := make(chan end, 1)
		s.actors.Go(func() {
			defer client.Close()
			over, err := main(s.ctx, p, client)
			ended <- end{over, err}
		})
		select {
		case e := <-ended:
			log.Info().Err(e.err).Msg("process ended")
			s.net.Note(name, "end", strings.ReplaceAll(fmt.Sprint(e.err), s.m.Out, "OUT"), "")
			if e.over {
				return
			}
		case <-p.conn.Died():
			s.mu.Lock()
			s.crashes++
			free := p.free
			s.mu.Unlock()
			free()
			s.litter()
		case <-s.ctx.Done():
			return
		}
		if !s.sleep(time.Duration(chance() * float64(20*time.Second))) {
			return
		}
	}
}

// litter is what a worker leaves behind that crashed while it wrote.
func (s *simulation) litter() {
	dir := filepath.Join(s.m.Out, "a")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		s.bad("%v", err)
		return
	}
	f, err := os.CreateTemp(dir, ".rows-"+s.m.Run+".*.tmp")
	if err != nil {
		s.bad("%v", err)
		return
	}
	_, _ = f.WriteString("PAR1 half of a")
	_ = f.Close()
}

func (s *simulation) worker(i int) {
	kind := fmt.Sprint("worker", i)
	chance := s.net.Chance("config of " + kind)
	s.life(kind, func(p *process) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.workers = append(slices.DeleteFunc(s.workers, func(o *process) bool { return o.name[:len(kind)] == kind }), p)
	}, func(ctx context.Context, p *process, client *jobs.Client) (bool, error) {
		w, err := New(client, Config{
			ID: "w-" + fmt.Sprint(i), Engine: score.EngineCPU, Threads: 1, InFlight: 1 + int(chance()*4),
			Program: "sim",
			Stalled: func(error) { p.conn.Crash() }, Log: s.logger(p.name),
		})
		if err != nil {
			return false, err
		}
		w.models.open = func(context.Context, *score.Job) (Engine, error) {
			return &simEngine{s: s, p: p, chance: s.net.Chance("engine of " + p.name),
				speed: time.Duration(1+chance()*8000) * time.Millisecond}, nil
		}
		fetch, drain := context.WithCancel(ctx)
		defer drain()
		s.mu.Lock()
		p.drain = drain
		s.mu.Unlock()
		return false, w.Run(fetch, ctx)
	})
}

func (s *simulation) dispatcher() {
	s.life("dispatcher", func(p *process) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.disp = p
	}, func(ctx context.Context, p *process, client *jobs.Client) (bool, error) {
		log := s.logger(p.name)
		sub, err := dispatch.Begin(ctx, s.req, dispatch.StaleAfter, log, nil)
		if err != nil {
			return false, err
		}
		var freed atomic.Bool
		free := func() {
			if !freed.Swap(true) {
				sub.Release()
			}
		}
		s.mu.Lock()
		p.free = free
		s.mu.Unlock()
		err = sub.Queue(ctx, client, dispatch.QueueOptions{Run: s.top})
		free()
		if err != nil {
			return false, err
		}
		sum, err := dispatch.Wait(ctx, client, s.m.Run, func(monitor.Progress) {}, log)
		if err != nil {
			return false, err
		}
		s.done <- sum
		return true, nil
	})
}

// watcher is somebody who waits for the run as well.
func (s *simulation) watcher() {
	s.life("watcher", func(*process) {}, func(ctx context.Context, p *process, client *jobs.Client) (bool, error) {
		_, err := dispatch.Wait(ctx, client, s.m.Run, func(monitor.Progress) {}, s.logger(p.name))
		return err == nil, err
	})
}

// chaos does to processes and server what the seed says.
func (s *simulation) chaos() {
	defer close(s.calm)
	chance := s.net.Chance("chaos")
	upTo := func(d time.Duration) time.Duration { return time.Duration(chance() * float64(d)) }
	begin := time.Now()
	pace := time.Duration(5+chance()*120) * time.Second
	wipes, losses := chance() < .15, 2
	for range int(chance() * 30) {
		select {
		case <-time.After(upTo(pace)):
		case <-s.over:
		}
		if time.Since(begin) > stormy || s.isOver() {
			break
		}
		s.mu.Lock()
		w, d := s.workers[int(chance()*float64(len(s.workers)))], s.disp
		s.mu.Unlock()
		long := upTo(3 * s.top.AckWait)
		switch c := chance(); {
		case c < .05:
			w.conn.Crash()
		case c < .20: // between any two steps
			w.conn.CrashAt(1 + int(chance()*40))
		case c < .30:
			w.conn.Freeze(long)
		case c < .45: // between any two steps, long enough that its jobs go to others
			w.conn.FreezeAt(1+int(chance()*40), s.top.AckWait+long/3)
		case c < .53:
			w.conn.Cut(long)
		case c < .57:
			if losses--; losses >= 0 {
				s.loseFile(chance())
			}
		case c < .65:
			s.net.Note(w.name, "drain", "", "")
			s.mu.Lock()
			drain := w.drain
			s.mu.Unlock()
			drain()
		case c < .80:
			d.conn.CrashAt(1 + int(chance()*60))
		case c < .85:
			d.conn.Freeze(long)
		case c < .90:
			d.conn.Cut(long)
		default:
			s.net.Restart(upTo(20*time.Second), wipes && chance() < .5)
		}
	}
	s.sleep(3 * s.top.AckWait) // until the last who froze goes on
}

// loseFile removes a score file, as a disk that was put back to what it was.
func (s *simulation) loseFile(which float64) {
	if s.allSettled() {
		return // or the loss might come after the last look
	}
	files, err := filepath.Glob(filepath.Join(s.m.Out, "*", "rows-*.parquet"))
	if err != nil || len(files) == 0 {
		return
	}
	file := files[int(which*float64(len(files)))]
	s.net.Note("test", "lose", filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file), "")
	if err := os.Remove(file); err != nil {
		s.bad("%v", err)
	}
}

// isOver: what people asked for is done, or never will be.
func (s *simulation) isOver() bool {
	select {
	case <-s.over:
		return true
	case <-s.ctx.Done():
		return true
	default:
		return false
	}
}

// simEngine scores each token by itself, so that scores depend on nothing else.
type simEngine struct {
	s      *simulation
	p      *process
	chance func() float64
	speed  time.Duration // about what a batch takes
}

func simNLL(in, target int32) float32 {
	x := uint64(in)<<32 | uint64(uint32(target))
	x *= 0x9e3779b97f4a7c15
	return float32(x>>44) / 1e4
}

type simState struct{}

func (simState) Release() {}

func (e *simEngine) Forward(ctx context.Context, b *score.Batch) error {
	if err := e.p.conn.Pause(ctx, "forward", e.speed); err != nil {
		return err
	}
	for i, id := range b.IDs {
		switch {
		case id == e.s.killer && id != 0:
			e.p.conn.Crash()
			return e.p.conn.Pause(ctx, "forward", e.speed)
		case id == e.s.poison && id != 0:
			return fmt.Errorf("poisoned by %d", id)
		}
		if t := b.Targets[i]; t != score.NoTarget {
			b.NLL[i], b.Top1[i] = simNLL(id, t), t%2 == 0
		}
	}
	if e.chance() < e.s.flaky {
		return fmt.Errorf("the engine is not well")
	}
	return nil
}

func (e *simEngine) NewState() (score.State, error)   { return simState{}, nil }
func (e *simEngine) CopyState(_, _ score.State) error { return nil }
func (e *simEngine) Close() error                     { return nil }
func (e *simEngine) Info() score.EngineInfo {
	return score.EngineInfo{Kind: score.EngineCPU, Precision: "fp32", Device: "sim", MaxTokens: 256, VocabSize: 1 << 17,
		MinDocuments: 3}
}
