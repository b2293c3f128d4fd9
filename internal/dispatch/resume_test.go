package dispatch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"surprisal/internal/jobs"
	"surprisal/internal/jobs/record"
	"surprisal/internal/monitor"
	"surprisal/internal/score"
	"surprisal/internal/testkit/queuetest"
	"surprisal/internal/usage"
)

// bench is a bench whose run is queued and waited for as dispatchers do it.
type bench struct{ *queuetest.Bench }

func newBench(t testing.TB, files, jobsEach int) *bench {
	t.Helper()
	return &bench{queuetest.New(t, files, jobsEach)}
}

func (b *bench) queue(opt QueueOptions) *Submitted {
	b.T.Helper()
	s, err := takeStock(b.Ctx, b.M, StaleAfter, zerolog.Nop())
	if err == nil {
		err = s.Queue(b.Ctx, b.Client, opt)
	}
	if err != nil {
		b.T.Fatal(err)
	}
	return s
}

func (b *bench) wait() (*Summary, error) {
	return Wait(b.Ctx, b.Client, b.M.Run, func(monitor.Progress) {}, zerolog.Nop())
}

// TestResumeWithoutQueue: the NATS server is gone with all it had. OUT alone is
// enough to go on, and no committed job is scored again.
func TestResumeWithoutQueue(t *testing.T) {
	b := newBench(t, 5, 8)
	b.queue(QueueOptions{})
	before := b.Work(b.Consumer("a"), 15)
	b.Start()
	if _, err := Resume(b.Ctx, b.Client, "", b.M.Run, QueueOptions{}, zerolog.Nop()); !strings.Contains(fmt.Sprint(err),
		"dispatcher resume OUT") {
		t.Fatalf("resume of a run that the queue does not know: %v", err)
	}
	r, err := Resume(b.Ctx, b.Client, b.M.Out, "", QueueOptions{}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	if r.Committed != 15 || r.Queued != 25 || r.Jobs != 40 || r.Run != b.M.Run {
		t.Fatalf("%+v", r)
	}
	// Once more, as after a second crash: what is queued stays queued, once.
	if r, err = Resume(b.Ctx, b.Client, "", b.M.Run, QueueOptions{}, zerolog.Nop()); err != nil || r.Queued != 25 {
		t.Fatalf("%+v %v", r, err)
	}
	for _, id := range b.Work(b.Consumer("b"), 25) {
		if slices.Contains(before, id) {
			t.Errorf("job %s was scored again", id)
		}
	}
	sum, err := b.wait()
	if err != nil || !sum.Complete || sum.Documents != 40 {
		t.Fatalf("%+v %v", sum, err)
	}
	if _, err := b.Client.RunQueue(b.Ctx, b.M.Run); !errors.Is(err, jobs.ErrNoRun) {
		t.Fatalf("the consumer of a complete run is there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(b.M.Out, score.SuccessName)); err != nil {
		t.Fatal(err)
	}
}

// TestOneDispatcherAtATime: the second is told who the first is, in one line.
func TestOneDispatcherAtATime(t *testing.T) {
	b := newBench(t, 1, 3)
	b.queue(QueueOptions{})
	other, err := b.Connect().AcquireRun(b.Ctx, b.M.Run, jobs.AcquireOptions{Command: "submit"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Resume(b.Ctx, b.Client, b.M.Out, "", QueueOptions{}, zerolog.Nop())
	host, _ := os.Hostname()
	var use *usage.Error
	if !errors.As(err, &use) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v", err)
	}
	for _, what := range []string{host, "pid " + strconv.Itoa(os.Getpid()), "since", "submit"} {
		if !strings.Contains(err.Error(), what) {
			t.Errorf("%q does not say %q", err, what)
		}
	}
	other.Release()
	if _, err := Resume(b.Ctx, b.Client, b.M.Out, "", QueueOptions{}, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
}

// TestManyWait: each gets the summary; a submission meanwhile is watched too.
func TestManyWait(t *testing.T) {
	b := newBench(t, 2, 6)
	b.queue(QueueOptions{})
	var wg sync.WaitGroup
	for range 3 {
		c := b.Connect()
		wg.Go(func() {
			sum, err := Wait(b.Ctx, c, b.M.Run, func(monitor.Progress) {}, zerolog.Nop())
			if err != nil || !sum.Complete || sum.Documents != 12 {
				t.Errorf("%+v %v", sum, err)
			}
		})
	}
	k := b.Consumer("a")
	b.Work(k, 5)
	// takes over from who waits
	if _, err := Resume(b.Ctx, b.Client, "", b.M.Run, QueueOptions{}, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	b.Work(k, 7)
	wg.Wait()
	r, err := b.Client.Run(b.Ctx, b.M.Run)
	if err != nil || r.State != record.RunComplete {
		t.Fatalf("%+v %v", r, err)
	}
}

// TestFilesDecide: a job on record as done that has no file is not done.
func TestFilesDecide(t *testing.T) {
	b := newBench(t, 1, 3)
	b.queue(QueueOptions{})
	k := b.Consumer("a")
	b.Work(k, 2)
	l, err := k.Next(b.Ctx, b.Ctx)
	if err == nil {
		err = l.Done(b.Ctx, record.Totals{Documents: 1})
	}
	if err != nil {
		t.Fatal(err)
	}
	summed := make(chan *Summary, 1)
	go func() {
		sum, err := b.wait()
		if err != nil {
			t.Error(err)
		}
		summed <- sum
	}()
	if again := b.Work(k, 1); again[0] != l.Job.ID {
		t.Errorf("job %s was queued again, want %s", again[0], l.Job.ID)
	}
	if sum := <-summed; sum == nil || !sum.Complete || sum.Documents != 3 {
		t.Errorf("%+v", sum)
	}
}

// TestDeathNotToldOf: whoever waits has heard of nothing. A job that is dead on
// record is not queued again.
func TestDeathNotToldOf(t *testing.T) {
	b := newBench(t, 1, 2)
	b.queue(QueueOptions{})
	k := b.Consumer("a")
	b.Work(k, 1)
	l, err := k.Next(b.Ctx, b.Ctx)
	if err == nil {
		err = l.Fail(b.Ctx, errors.New("bad rows"))
	}
	if err != nil {
		t.Fatal(err)
	}
	w := newWatch(b.Client, b.M, &Committed{Jobs: map[string]bool{}}, func(monitor.Progress) {}, zerolog.Nop(), alone{})
	c, dead, err := w.follow(b.Ctx, make(chan record.Job))
	if err != nil || len(c.Jobs) != 1 || len(dead) != 1 || dead[0].Job != l.Job.ID || w.resent != 0 {
		t.Fatalf("%d committed, dead %+v, queued again %d times: %v", len(c.Jobs), dead, w.resent, err)
	}
}

// TestRunConfigIsKept: what a run was queued with holds whoever opens its part of
// the queue again, and asking for the same is never drift.
func TestRunConfigIsKept(t *testing.T) {
	b := newBench(t, 1, 3)
	opt := QueueOptions{Run: record.RunConfig{AckWait: 15 * time.Second, MaxAttempts: 3}}
	want := func(wait time.Duration) {
		t.Helper()
		q, err := b.Client.RunQueue(b.Ctx, b.M.Run)
		if err != nil || q.Config.AckWait != wait || q.Config.MaxAttempts != 3 || q.Config.MaxLost != 5 {
			t.Fatalf("%+v %v", q, err)
		}
	}
	resume := func(opt QueueOptions) {
		t.Helper()
		if _, err := Resume(b.Ctx, b.Client, b.M.Out, "", opt, zerolog.Nop()); err != nil {
			t.Fatal(err)
		}
	}
	b.queue(opt)
	want(15 * time.Second)
	if err := Cancel(b.Ctx, b.Client, b.M.Run, false); err != nil {
		t.Fatal(err)
	}
	resume(QueueOptions{}) // as on record
	want(15 * time.Second)
	resume(opt)
	if err := Cancel(b.Ctx, b.Client, b.M.Run, false); err != nil {
		t.Fatal(err)
	}
	resume(QueueOptions{Run: record.RunConfig{AckWait: 20 * time.Second}}) // what is asked goes first
	want(20 * time.Second)
	if r, err := b.Client.Run(b.Ctx, b.M.Run); err != nil || r.Config != (record.RunConfig{AckWait: 20 * time.Second,
		MaxAttempts: 3}) {
		t.Fatalf("on record: %+v %v", r.Config, err)
	}
	// The queue was wiped, a dispatcher has just recorded the run anew, and one that
	// watches is the first to open it.
	b.Start()
	r := record.NewRun(b.M)
	r.Config = opt.Run
	err := b.Client.Setup(b.Ctx, jobs.Topology{})
	if err == nil {
		err = b.Client.PutRun(b.Ctx, r)
	}
	if err == nil {
		err = newWatch(b.Client, b.M, &Committed{}, func(monitor.Progress) {}, zerolog.Nop(), alone{}).resubmit(b.Ctx,
			[]int32{0})
	}
	if err != nil {
		t.Fatal(err)
	}
	want(15 * time.Second)
	b.queue(opt)
}

func TestPauseCancelRetry(t *testing.T) {
	b := newBench(t, 1, 6)
	b.queue(QueueOptions{})
	k := b.Consumer("a")
	b.Work(k, 1)
	if err := Pause(b.Ctx, b.Client, b.M.Run); err != nil {
		t.Fatal(err)
	}
	b.queue(QueueOptions{}) // submitting again does not let it go on
	r, err := b.Client.Run(b.Ctx, b.M.Run)
	if err != nil || r.State != record.RunPaused {
		t.Fatalf("%+v %v", r, err)
	}
	if q, err := b.Client.RunQueue(b.Ctx, b.M.Run); err != nil || !q.Paused || q.Pending != 5 {
		t.Fatalf("%+v %v", q, err)
	}
	if res, err := Resume(b.Ctx, b.Client, "", b.M.Run, QueueOptions{}, zerolog.Nop()); err != nil || !res.WasPaused {
		t.Fatalf("%+v %v", res, err)
	}
	l, err := k.Next(b.Ctx, b.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Fail(b.Ctx, errors.New("bad rows")); err != nil {
		t.Fatal(err)
	}
	b.Work(k, 4)
	if sum, err := b.wait(); err != nil || sum.Complete || len(sum.DeadJobs) != 1 {
		t.Fatalf("%+v %v", sum, err)
	}
	if res, err := Resume(b.Ctx, b.Client, "", b.M.Run, QueueOptions{}, zerolog.Nop()); err != nil || res.Queued != 0 ||
		res.Dead != 1 {
		t.Fatalf("resume is no retry: %+v %v", res, err)
	}
	if res, err := Retry(b.Ctx, b.Client, b.M.Run, RetryOptions{Dead: true, FailedFiles: true}, QueueOptions{},
		zerolog.Nop()); err != nil || res.DeadJobs != 1 {
		t.Fatalf("%+v %v", res, err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := b.wait()
		waited <- err
	}()
	select {
	case err := <-waited:
		t.Fatalf("who waits took an old death for a new one: %v", err)
	case <-time.After(time.Second):
	}
	if l, err = k.Next(b.Ctx, b.Ctx); err != nil || len(l.Prior.History) != 1 ||
		l.Prior.History[0].Error != "bad rows" {
		t.Fatalf("history is not kept: %+v %v", l.Prior, err)
	}
	if err := Cancel(b.Ctx, b.Client, b.M.Run, true); err != nil { // from under who waits
		t.Fatal(err)
	}
	select {
	case <-l.Context().Done():
	case <-time.After(time.Minute):
		t.Fatal("the job in hand is not dropped")
	}
	if err := <-waited; !errors.Is(err, ErrCancelled) {
		t.Fatalf("who waits got %v", err)
	}
	_ = l.Abandon(b.Ctx)
	// A person who changes their mind resumes it.
	if res, err := Resume(b.Ctx, b.Client, "", b.M.Run, QueueOptions{}, zerolog.Nop()); err != nil ||
		res.Queued+res.Dead != 1 {
		t.Fatalf("%+v %v", res, err)
	}
	b.Work(k, 1)
	if sum, err := b.wait(); err != nil || !sum.Complete {
		t.Fatalf("%+v %v", sum, err)
	}
	var use *usage.Error
	if err := Cancel(b.Ctx, b.Client, b.M.Run, false); !errors.As(err, &use) {
		t.Fatalf("cancelling a complete run: %v", err)
	}
}

// TestReconcileMany takes stock of an OUT full of committed files. By default
// 2,000; SURPRISAL_RECONCILE_JOBS says how many, and SURPRISAL_RECONCILE_DIR where.
func TestReconcileMany(t *testing.T) {
	n := 2000
	if testing.Short() {
		n = 200
	}
	if s := os.Getenv("SURPRISAL_RECONCILE_JOBS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 100 {
			t.Fatalf("SURPRISAL_RECONCILE_JOBS is %q: want a number from 100", s)
		}
	}
	dir := t.TempDir()
	if d := os.Getenv("SURPRISAL_RECONCILE_DIR"); d != "" {
		var err error
		if dir, err = os.MkdirTemp(d, "reconcile-"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
	}
	m := queuetest.MadeUp(filepath.Join(dir, "out"), n/100, 100)
	all := m.Jobs()
	const leave = 7
	var g errgroup.Group
	g.SetLimit(4 * runtime.GOMAXPROCS(0))
	start := time.Now()
	for _, j := range all[leave:] {
		g.Go(func() error { _, err := queuetest.Commit(t.Context(), j); return err })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files written in %s", len(all)-leave, time.Since(start).Round(time.Millisecond))
	start = time.Now()
	c, err := Reconcile(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	t.Logf("%d jobs reconciled in %s on %d cores: %.0f a second", len(all), took.Round(time.Millisecond),
		runtime.GOMAXPROCS(0), float64(len(all))/took.Seconds())
	left := slices.Collect(pending(m, c))
	if len(c.Jobs) != len(all)-leave || len(left) != leave || len(c.Foreign) != 0 ||
		c.Totals.Documents != int64(len(all)-leave) {
		t.Fatalf("%d committed, %d left, %d foreign, %d documents", len(c.Jobs), len(left), len(c.Foreign),
			c.Totals.Documents)
	}
	if per := took / time.Duration(len(all)); per > 600*time.Microsecond && n >= 20000 {
		t.Errorf("%s a job: 100,000 take more than a minute", per)
	}
}
