package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"surprisal/internal/jobs/record"
	"surprisal/internal/score"
)

func TestWatchRun(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 600)
	r.submit(js, 1, len(js), 0)
	r.submit(makeJobs("other", 1), 1, 1, 0)
	k, _ := r.worker(quick("a"))
	for range 300 {
		r.ok(r.next(k).Done(r.ctx, record.Totals{Documents: 10}))
	}
	var mu sync.Mutex
	states := map[string]record.State{}
	told := -1
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan error, 1)
	go func() {
		done <- r.c.WatchRun(ctx, "run", func(s record.Job) {
			mu.Lock()
			defer mu.Unlock()
			states[s.Job] = s.State
			if s.Run != "run" {
				t.Errorf("a state of run %s", s.Run)
			}
		}, func() {
			mu.Lock()
			defer mu.Unlock()
			told = len(states)
		})
	}()
	count := func(want record.State) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range states {
			if s == want {
				n++
			}
		}
		return n
	}
	r.until("the initial states", func() bool { mu.Lock(); defer mu.Unlock(); return told >= 0 })
	if told != 300 {
		t.Fatalf("%d states told at first, want 300", told)
	}
	l := r.next(k)
	r.until("running is told", func() bool { return count(record.StateRunning) == 1 })
	r.ok(l.Retry(r.ctx, errBoom))
	r.until("failed is told", func() bool { return count(record.StateFailed) == 1 })

	r.srv.Shutdown() // it goes on after a restart
	time.Sleep(200 * time.Millisecond)
	r.startServer()
	for range 300 {
		r.ok(r.next(k).Done(r.ctx, record.Totals{Documents: 10}))
	}
	r.until("all are done", func() bool { return count(record.StateDone) == 600 })
	cancel()
	r.is(<-done, context.Canceled)
}

func TestWatchRunEmpty(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	ctx, cancel := context.WithCancel(r.ctx)
	err := r.c.WatchRun(ctx, "run", func(record.Job) { t.Error("a state") }, cancel)
	r.is(err, context.Canceled)
	if err := r.c.WatchRun(r.ctx, "*", nil, nil); err == nil {
		t.Fatal("a wildcard was taken")
	}
}

// A watcher slower than the updates sees the newest of each in the end.
func TestWatchSlowReader(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	kv, err := r.c.bucket(r.ctx, JobBucket)
	r.ok(err)
	put := func(i int, st record.State) {
		s := record.Job{Run: "run", Job: score.JobID("run", score.Input{}, int64(i), int64(i)), State: st}
		b, err := s.Encode()
		r.ok(err)
		_, err = kv.Put(r.ctx, s.Key(), b)
		r.ok(err)
	}
	for i := range 100 {
		put(i, record.StateRunning)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	first := make(chan struct{})
	go func() {
		<-first
		for i := range 100 {
			put(i, record.StateDone)
		}
	}()
	done := map[string]bool{}
	var once sync.Once
	err = r.c.WatchRun(ctx, "run", func(s record.Job) {
		once.Do(func() { close(first); time.Sleep(time.Second) })
		if s.State == record.StateDone {
			if done[s.Job] = true; len(done) == 100 {
				cancel()
			}
		}
	}, nil)
	r.is(err, context.Canceled)
}

func TestRuns(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	m := manifest("one", 7)
	for range 40 {
		m.Inputs = append(m.Inputs, "/more")
	}
	rec := record.NewRun(m)
	if rec.Jobs != 7 || rec.Rows != 70 || len(rec.Inputs) != 16 || rec.InputCount != 41 ||
		rec.State != record.RunPlanned {
		t.Fatalf("record %+v", rec)
	}
	_, err := r.c.Run(r.ctx, "one")
	r.is(err, ErrNoRun)
	r.ok(r.c.PutRun(r.ctx, rec))
	r.is(r.c.PutRun(r.ctx, rec), ErrRunExists)
	second := manifest("two", 1)
	second.Created = "2024-01-01T00:00:00Z"
	r.ok(r.c.PutRun(r.ctx, record.NewRun(second)))
	runs, err := r.c.Runs(r.ctx)
	r.ok(err)
	if len(runs) != 2 || runs[0].ID != "two" || runs[1].ID != "one" {
		t.Fatalf("runs %+v", runs)
	}
	// Compare and swap: nobody's change is lost, epochs are handed out once.
	var wg sync.WaitGroup
	var mu sync.Mutex
	var epochs []uint64
	for range 8 {
		wg.Go(func() {
			e, err := r.c.NextEpoch(r.ctx, "one")
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			epochs = append(epochs, e)
		})
	}
	wg.Wait()
	slices.Sort(epochs)
	if !slices.Equal(epochs, []uint64{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Fatalf("epochs %v", epochs)
	}
	_, err = r.c.UpdateRun(r.ctx, "one", func(*record.Run) error { return errBoom })
	r.is(err, errBoom)
	got, err := r.c.UpdateRun(r.ctx, "one", func(x *record.Run) error { x.State = record.RunRunning; return nil })
	r.ok(err)
	if got.State != record.RunRunning || got.Epoch != 8 || got.Options.TextColumn != "text" || got.State.Final() {
		t.Fatalf("run %+v", got)
	}
	_, err = r.c.UpdateRun(r.ctx, "three", func(*record.Run) error { return nil })
	r.is(err, ErrNoRun)
}

func TestWorkers(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	r.ok(r.c.PutWorker(r.ctx, record.Worker{ID: "b", Host: "h", PID: 7, Engine: "cpu", TokensPerSec: 1.5,
		Progress: []record.Progress{{Run: "run", Job: "job", Tokens: 5}}}))
	r.ok(r.c.PutWorker(r.ctx, record.Worker{ID: "a"}))
	if err := r.c.PutWorker(r.ctx, record.Worker{ID: "a b.>"}); err == nil {
		t.Fatal("a bad id was taken")
	}
	ws, err := r.c.Workers(r.ctx)
	r.ok(err)
	if len(ws) != 2 || ws[0].ID != "a" || ws[1].PID != 7 || ws[1].Updated.IsZero() || len(ws[1].Progress) != 1 {
		t.Fatalf("workers %+v", ws)
	}
	r.ok(r.c.RemoveWorker(r.ctx, "a"))
	r.ok(r.c.RemoveWorker(r.ctx, "never"))
	ws, err = r.c.Workers(r.ctx)
	r.ok(err)
	if len(ws) != 1 || ws[0].ID != "b" {
		t.Fatalf("workers %+v", ws)
	}
}

func TestBadRecordsAreSkipped(t *testing.T) {
	r := newRig(t, record.RunConfig{})
	js := makeJobs("run", 1)
	for bucket, key := range map[string]string{runBucket: "run", workerBucket: "w", JobBucket: "run." + js[0].ID} {
		kv, err := r.c.bucket(r.ctx, bucket)
		r.ok(err)
		_, err = kv.Put(r.ctx, key, []byte(`{"v":99}`))
		r.ok(err)
	}
	runs, err := r.c.Runs(r.ctx)
	r.ok(err)
	ws, err := r.c.Workers(r.ctx)
	r.ok(err)
	if len(runs)+len(ws) != 0 {
		t.Fatalf("%v %v", runs, ws)
	}
	_, err = r.c.Run(r.ctx, "run")
	r.is(err, record.ErrBad)
	r.ok(r.c.JobStates(r.ctx, "run", func(record.Job) { t.Error("a bad record was told") }))
	r.submit(js, 1, 1, 0)
	k, _ := r.worker(quick("a"))
	r.ok(r.next(k).Done(r.ctx, record.Totals{})) // a bad record does not hold a job up
	r.wantState(js[0], record.StateDone, 0, 0)
}

func FuzzDecodeJobState(f *testing.F) {
	b, err := record.Job{Run: "run", Job: "job", State: record.StateDone, Totals: &record.Totals{SumNLL: 1.5}}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"v":1}`))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := record.DecodeJob(b)
		if err != nil {
			if !errors.Is(err, record.ErrBad) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		u, err := record.DecodeJob(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		x, _ := json.Marshal(s.Key())
		y, _ := json.Marshal(u.Key())
		if string(x) != string(y) || s.State != u.State || s.Attempts() != u.Attempts() {
			t.Fatalf("%+v became %+v", s, u)
		}
	})
}
