//go:build failpoints

package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"surprisal/internal/failpoint"
)

// slow makes each batch take its time, so that a run lasts as long as a fault.
const slow = failpoint.MidForward + "=sleep:150ms@1+"

// underway waits until a run has some outputs.
func underway(t *testing.T, out string) {
	t.Helper()
	waitForOutputs(t, out, 1)
}

// TestChaosServer kills the server in the middle of runs: once it comes back as it
// was, then with an empty store, into which the run is queued again from what OUT holds.
func TestChaosServer(t *testing.T) {
	f := newField(t)
	times := 1
	if long {
		times = 4
	}
	for i := range times {
		out := f.newOut()
		run := f.submit(out)
		workers := []*hand{f.worker(slow), f.worker(slow)}
		for range 2 {
			underway(t, out)
			f.server.kill()
			figures.kills++
			time.Sleep(500 * time.Millisecond)
			f.server.start()
			time.Sleep(300 * time.Millisecond)
		}
		f.wait(run)
		f.check(out)

		out = f.newOut()
		run = f.submit(out)
		underway(t, out)
		f.server.kill()
		figures.kills++
		must(t, os.RemoveAll(f.store))
		f.server.start()
		if i%2 == 0 { // OUT alone says what is left; so does the same command
			dispatcher(t, "resume", out).want(t, 0)
		} else {
			f.submit(out)
		}
		f.wait(run)
		for _, h := range workers {
			h.stop()
		}
		f.check(out)
	}
}

// TestChaosPartition puts a worker behind a network that goes silent for longer
// than AckWait while others work, and one that loses what the server says, acks
// among it, and breaks.
func TestChaosPartition(t *testing.T) {
	f := newField(t)
	times := 1
	if long {
		times = 4
	}
	for range times {
		out := f.newOut()
		run := f.submit(out)
		p := newProxy(t, f.server.addr())
		far := f.worker(slow, "--nats", p.addr())
		underway(t, out)
		p.partition()
		near := f.worker("")
		f.wait(run) // without the far one
		time.Sleep(chaosAckWait)
		p.heal()
		near.stop()
		far.stop()
		f.check(out)

		out = f.newOut()
		run = f.submit(out)
		far = f.worker(slow, "--nats", p.addr())
		underway(t, out)
		for range 6 {
			p.deaf.Store(true)
			time.Sleep(150 * time.Millisecond)
			p.cut()
			p.heal()
			time.Sleep(200 * time.Millisecond)
		}
		f.wait(run)
		far.stop()
		f.check(out)
	}
}

// TestChaosLostAcks loses acks and records: what is done is found done.
func TestChaosLostAcks(t *testing.T) {
	f := newField(t)
	out := f.newOut()
	run := f.submit(out)
	h := f.worker(failpoint.BeforeAck + "=error:lost@2;" + failpoint.BeforeRecord + "=error:lost@4;" +
		failpoint.AfterFetch + "=error:lost@5")
	f.wait(run)
	// The queue is told at the next delivery.
	time.Sleep(2 * chaosAckWait)
	says(t, dispatcher(t, "status", run).want(t, 0).stdout, "complete")
	h.stop()
	f.check(out)
}

// TestChaosCluster kills the nodes of a cluster of three one after the other while
// runs go on, then freezes each for longer than an election takes, so that it wakes
// to a cluster that has gone on without it. Each comes back.
func TestChaosCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("short: three servers")
	}
	f := newField(t)
	d := deploy(t, "../deploy/nats/r3/n1.conf", "../deploy/nats/r3/n2.conf", "../deploy/nats/r3/n3.conf")
	d.quorum()
	t.Run("killed", func(t *testing.T) {
		f.cluster(t, d, "2s", func(n *natsServer) {
			n.kill()
			figures.kills++
			time.Sleep(time.Second)
			n.start()
		})
	})
	t.Run("frozen", func(t *testing.T) {
		f.cluster(t, d, "7s", func(n *natsServer) {
			must(t, n.cmd.Process.Signal(syscall.SIGSTOP))
			figures.freezes++
			time.Sleep(clusterFreeze)
			must(t, n.cmd.Process.Signal(syscall.SIGCONT))
		})
	})
}

// clusterFreeze is longer than nats-server's longest election timeout, 9 s, and
// than the 10 s after which a leader that hears nobody steps down.
const clusterFreeze = 13 * time.Second

// cluster has a fault come over each node in turn while a run goes on whose batches
// take that long.
func (f *field) cluster(t *testing.T, d *deployment, batch string, fault func(*natsServer)) {
	as := func(user string) {
		for _, kv := range d.as(user) {
			name, value, _ := strings.Cut(kv, "=")
			setenv(t, name, value)
		}
	}
	f.t = t
	as("dispatcher")
	out := f.newOut()
	args := append(f.submitArgs(out), "--replicas", "3")
	run := strings.TrimSpace(dispatcher(t, args...).want(t, 0).stdout)
	as("worker")
	crawl := failpoint.MidForward + "=sleep:" + batch + "@1+"
	workers := []*hand{f.worker(crawl), f.worker(crawl)}
	as("dispatcher")
	underway(t, out)
	jobs := strings.Count(finished(t, f.calm), ".parquet ")
	for i, n := range d.nodes {
		done := strings.Count(finished(t, out), ".parquet ")
		t.Logf("%d of %d jobs were done before fault %d", done, jobs, i+1)
		if done >= jobs {
			t.Error("nothing was left to disturb")
		}
		fault(n)
		time.Sleep(2 * time.Second) // to catch up: two of three have to be whole
	}
	began := time.Now()
	for _, h := range workers {
		h.stop()
	}
	as("worker")
	good := f.worker("")
	as("dispatcher")
	f.wait(run)
	t.Logf("done %s after the last fault", time.Since(began).Round(time.Millisecond))
	good.stop()
	f.check(out)
}

// TestChaosDrain: SIGTERM with a job in hand ends within 25 s, and what there is
// is whole; a second signal ends at once.
func TestChaosDrain(t *testing.T) {
	f := newField(t)
	out := f.newOut()
	run := f.submit(out)
	h := f.worker(slow)
	underway(t, out)
	began := time.Now()
	h.stop()
	if code := h.code(); code != 0 || time.Since(began) > 25*time.Second {
		t.Errorf("exit code %d after %s", code, time.Since(began))
	}
	if left := temporaries(t, out); left != "" {
		t.Errorf("left behind: %s", left)
	}
	h = f.worker(failpoint.MidWrite + "=sleep:300ms@1+") // a job takes seconds to write
	waitFor(t, "a file half written", func() bool { return temporaries(t, out) != "" })
	done := finished(t, out)
	h.signal(syscall.SIGTERM)
	time.Sleep(200 * time.Millisecond)
	h.signal(syscall.SIGTERM)
	if !h.ended(3 * time.Second) {
		t.Error("a second signal did not end it at once")
	}
	if code := h.code(); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	if now := finished(t, out); now != done {
		t.Errorf("something half written shows:\n%s\nwas\n%s", now, done)
	}
	good := f.worker("")
	f.wait(run)
	good.stop()
	f.sweep(out)
	f.check(out)
}

// TestChaosDisk: errors of the disk cost attempts, never rows; a full or read-only
// disk is named, and the same command goes on once it is mended.
func TestChaosDisk(t *testing.T) {
	f := newField(t)
	out := f.newOut()
	run := f.submit(out)
	h := f.worker(failpoint.MidWrite + "=error:EIO@3;" + failpoint.BeforeRename + "=error:EIO@2;" +
		failpoint.AfterRename + "=error:ENOSPC@4")
	f.wait(run)
	h.stop()
	says(t, h.log(), "input/output error", "no space left")
	f.check(out)
	if os.Getuid() != 0 {
		t.Skip("not root: a full and a read-only disk can't be mounted")
	}
	disk := f.at("disk")
	must(t, os.MkdirAll(disk, 0o777))
	if err := syscall.Mount("surprisal-test", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	remount := func(flags uintptr, size string) {
		t.Helper()
		must(t, syscall.Mount("surprisal-test", disk, "tmpfs", syscall.MS_REMOUNT|flags, "size="+size))
	}
	out = filepath.Join(disk, "out")
	for name, broken := range map[string]struct {
		flags uintptr
		size  string
		says  string
	}{"full": {0, "256k", "no space left"}, "read-only": {syscall.MS_RDONLY, "64m", "read-only file system"}} {
		remount(0, "64m")
		must(t, os.RemoveAll(out))
		run := f.submit(out)
		if name == "full" {
			remount(0, "1m")
			fill(t, filepath.Join(disk, "ballast"))
		} else {
			remount(broken.flags, broken.size)
		}
		// One attempt a job is enough here: jobs die with the disk's own words.
		h := f.worker("")
		waitFor(t, name+": the disk's error in the records", func() bool {
			return strings.Contains(dispatcher(t, "status", "--json", run).want(t, 0).stdout, `"failed"`)
		})
		// it comes after the record
		waitFor(t, name+": the disk's error in the log", func() bool { return strings.Contains(h.log(), broken.says) })
		h.signal(syscall.SIGKILL)
		<-h.end
		says(t, h.log(), broken.says)
		remount(0, "64m")
		must(t, os.RemoveAll(filepath.Join(disk, "ballast")))
		run = f.submit(out)
		good := f.worker("")
		f.wait(run)
		good.stop()
		f.sweep(out)
		f.check(out)
	}
}

// TestChaosDiskDead: on a disk that stays full a job is dead after five attempts;
// with space again `retry --dead` ends with the bytes of the undisturbed run.
func TestChaosDiskDead(t *testing.T) {
	if !long {
		t.Skip("SURPRISAL_CHAOS=long: five attempts with growing delays take a minute")
	}
	if os.Getuid() != 0 {
		t.Skip("not root: a full disk can't be mounted")
	}
	f := newField(t)
	disk := f.at("disk")
	must(t, os.MkdirAll(disk, 0o777))
	if err := syscall.Mount("surprisal-test", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	out := filepath.Join(disk, "out")
	run := f.submit(out)
	fill(t, filepath.Join(disk, "ballast"))
	h := f.worker("")
	waitFor(t, "all jobs dead", func() bool { return dispatcher(t, "wait", "--json", run).code == 1 })
	dead := dispatcher(t, "dead", "list", "--json", run).want(t, 0).stdout
	says(t, dead, "attempt 5 of 5 failed", "no space left")
	must(t, os.Remove(filepath.Join(disk, "ballast")))
	dispatcher(t, "retry", "--dead", run).want(t, 0)
	f.wait(run)
	h.stop()
	f.sweep(out)
	f.check(out)
}

// fill takes what a disk has left.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	must(t, err)
	defer file.Close()
	for _, n := range []int{64 << 10, 4 << 10} {
		for b := make([]byte, n); err == nil; {
			_, err = file.Write(b)
		}
		err = nil
	}
}

// TestChaosBits flips bits of outputs and inputs: verify finds each in the outputs
// and the run's command mends it; an input that is not the planned one any more
// costs its own jobs, with the reason.
func TestChaosBits(t *testing.T) {
	f := newField(t)
	out := f.newOut()
	args := append([]string{"run", "--out", out}, f.flags()...)
	dispatcher(t, args...).want(t, 0)
	flips := 3
	if long {
		flips = 24
	}
	for i := range flips {
		path := firstOutput(t, out, i)
		flipBit(t, path, i*7919)
		dispatcher(t, "verify", "--repair", out).want(t, 1)
		dispatcher(t, args...).want(t, 0)
		dispatcher(t, "verify", out).want(t, 0)
		must(t, os.RemoveAll(filepath.Join(out, ".surprisal-quarantine")))
		f.check(out)
	}
	in := filepath.Join(f.in, "a.parquet")
	for i := range flips {
		whole, err := os.ReadFile(in)
		must(t, err)
		st, err := os.Stat(in)
		must(t, err)
		out := f.newOut()
		run := f.submit(out)
		flipBit(t, in, i*104729)
		h := f.worker("")
		sum := parseSummary(t, dispatcher(t, "wait", "--json", run).want(t, 1))
		h.stop()
		if len(sum.DeadJobs) == 0 || !strings.Contains(sum.DeadJobs[0].Reason, "changed") || sum.Documents != 30 {
			t.Errorf("flip %d: %+v", i, sum)
		}
		must(t, os.WriteFile(in, whole, 0o666))
		must(t, os.Chtimes(in, st.ModTime(), st.ModTime()))
		run = f.submit(out)
		h = f.worker("")
		f.wait(run)
		h.stop()
		f.check(out)
	}
}

// TestChaosSilentBits flips bits of an input whose pages have checksums and puts its
// time back, so that nothing but its bytes tells: the rows are those that were
// written, or the job dies with the reason; the file put back, all is as undisturbed.
func TestChaosSilentBits(t *testing.T) {
	f := newField(t)
	in := filepath.Join(f.in, "a.parquet")
	whole, err := os.ReadFile(in)
	must(t, err)
	st, err := os.Stat(in)
	must(t, err)
	flips := 3
	if long {
		flips = 24
	}
	died := 0
	for i := range flips {
		out := f.newOut()
		run := f.submit(out)
		flipBit(t, in, 4+i*(len(whole)-8)/flips)
		must(t, os.Chtimes(in, st.ModTime(), st.ModTime()))
		h := f.worker("")
		r := dispatcher(t, "wait", "--json", run)
		if r.code == 1 {
			died++
			for _, d := range parseSummary(t, r).DeadJobs {
				if d.File != "a.parquet" || !strings.Contains(d.Reason, "parquet") {
					t.Errorf("flip %d: %+v", i, d)
				}
			}
		} else {
			r.want(t, 0)
		}
		must(t, os.WriteFile(in, whole, 0o666))
		must(t, os.Chtimes(in, st.ModTime(), st.ModTime()))
		if r.code == 1 {
			dispatcher(t, "retry", "--dead", run).want(t, 0)
			f.wait(run)
		}
		f.check(out) // it reads the input too
		h.stop()
	}
	t.Logf("%d flips, %d of them cost jobs", flips, died)
	if died == 0 {
		t.Error("no flip was noticed")
	}
}

func firstOutput(t *testing.T, out string, i int) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(out, "a", "*.parquet"))
	must(t, err)
	return all[i%len(all)]
}

// flipBit flips one bit of a file.
func flipBit(t *testing.T, path string, seed int) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	b[seed%len(b)] ^= 1 << (seed % 8)
	must(t, os.WriteFile(path, b, 0o666))
}

// temporaries are the hidden files that something writes, or has left.
func temporaries(t *testing.T, out string) (left string) {
	t.Helper()
	must(t, filepath.WalkDir(out, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".tmp") {
			left += path + " "
		}
		return nil // what vanishes meanwhile is none
	}))
	return left
}

// TestChaosFigures prints what all of them came to.
func TestChaosFigures(t *testing.T) {
	t.Logf("chaos: %d kills, %d freezes, %d runs; %d rows checked, %d lost or twice; "+
		"%d of %d outputs identical to the undisturbed run",
		figures.kills, figures.freezes, figures.runs, figures.rowsChecked, figures.rowsBroken, figures.identical,
		figures.runs)
	if figures.rowsBroken > 0 || figures.identical != figures.runs {
		t.Error("see above")
	}
	if long && figures.kills+figures.freezes < 150 {
		t.Errorf("%d kills and freezes, at least 150 are wanted", figures.kills+figures.freezes)
	}
}
